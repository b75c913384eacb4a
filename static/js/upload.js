/** Draws the list of uploads: progress, speed, time left, pause, go on, try again, cancel. */
"use strict";

Behaviours.add("[data-uploader]", (form) => {
  const MAX_FILES_IN_FLIGHT = 4;
  const REDRAW_MS = 200;
  const SPEED_WINDOW_MS = 8000;

  const texts = Object.fromEntries(
    [...form.querySelector("template[data-upload-texts]").content.children].map(
      (element) => [element.dataset.text, element.textContent.trim()],
    ),
  );
  const csrfToken = JSON.parse(document.body.getAttribute("hx-headers"))["X-CSRFToken"];
  const language = document.documentElement.lang || "en";
  const list = form.querySelector("[data-upload-list]");
  const summary = form.querySelector("[data-upload-summary]");
  const rows = new Map();
  let numAdded = 0;

  // --- Words ------------------------------------------------------------------------------------------------

  const fill = (text, values) => text.replace(/\{(\w+)\}/g, (_, name) => values[name]);

  function unit(value, name, digits = 0) {
    return new Intl.NumberFormat(language, {
      style: "unit", unit: name, unitDisplay: "short", maximumFractionDigits: digits,
    }).format(value);
  }

  function size(bytes) {
    const units = ["byte", "kilobyte", "megabyte", "gigabyte"];
    const power = Math.min(Math.floor(Math.log2(Math.max(bytes, 1)) / 10), 3);
    return unit(bytes / 1024 ** power, units[power], power > 1 ? 1 : 0);
  }

  function duration(seconds) {
    if (seconds < 60) return unit(Math.max(1, Math.ceil(seconds / 5) * 5), "second");
    if (seconds < 5400) return unit(Math.round(seconds / 60), "minute");
    return unit(seconds / 3600, "hour", 1);
  }

  // --- Unfinished uploads of an earlier visit -----------------------------------------------------------------

  const memory = {
    key: `uploads ${form.dataset.createUrl}`,
    read() {
      try {
        return JSON.parse(localStorage.getItem(this.key)) ?? {};
      } catch {
        return {};
      }
    },
    change(how) {
      const all = this.read();
      how(all);
      try {
        localStorage.setItem(this.key, JSON.stringify(all));
      } catch {
        // Without storage nothing is offered after a reload; the server still knows the parts.
      }
    },
    name: (file) => `${file.name} ${file.size}`,
  };

  const resume = form.querySelector("[data-upload-resume]");
  function showUnfinished() {
    const unfinished = Object.values(memory.read());
    resume.hidden = unfinished.length === 0;
    resume.querySelector("[data-upload-resume-list]").replaceChildren(
      ...unfinished.map(({ name, percent }) => {
        const item = document.createElement("li");
        item.textContent = fill(texts.unfinished, { name, percent });
        return item;
      }),
    );
  }
  form.querySelector("[data-upload-resume-forget]").addEventListener("click", () => {
    for (const { abortUrl } of Object.values(memory.read())) {
      fetch(abortUrl, { method: "DELETE", headers: { "X-CSRFToken": csrfToken } }).catch(() => {});
    }
    memory.change((all) => Object.keys(all).forEach((name) => delete all[name]));
    showUnfinished();
    form.querySelector("[data-file-input]").focus();
  });

  // --- Rows -------------------------------------------------------------------------------------------------

  function addRow(name, bytes) {
    const element = form.querySelector("template[data-upload-row]").content.firstElementChild.cloneNode(true);
    const part = (key) => element.querySelector(`[data-${key}]`);
    part("name").textContent = name;
    part("size").textContent = bytes === undefined ? "" : size(bytes);
    part("progress").setAttribute("aria-label", fill(texts.progress, { name }));
    for (const key of ["open", "pause", "resume", "retry", "cancel", "dismiss"]) {
      part(key).setAttribute("aria-label", `${part(key).textContent}: ${name}`);
    }
    list.append(element);
    form.querySelector("[data-upload-queue]").hidden = false;
    return { element, part, name, phase: "", samples: [], drawnAt: 0 };
  }

  const BUTTONS = {
    waiting: ["cancel"],
    sending: ["pause", "cancel"],
    stalled: ["pause", "cancel"],
    paused: ["resume", "cancel"],
    finishing: [],
    done: ["open"],
    failed: ["retry", "dismiss"],
    refused: ["dismiss"],
  };

  function setPhase(row, phase, sentence) {
    row.phase = phase;
    row.element.dataset.phase = phase;
    row.part("state").textContent = sentence;
    const focused = row.element.contains(document.activeElement);
    for (const key of ["open", "pause", "resume", "retry", "cancel", "dismiss"]) {
      row.part(key).hidden = !BUTTONS[phase].includes(key);
    }
    // A button that vanishes under the finger must not throw the keyboard back to the top of the page.
    if (focused && document.activeElement.hidden !== false && BUTTONS[phase].length) {
      row.part(BUTTONS[phase][0]).focus();
    }
    drawSummary();
  }

  function drawSummary() {
    const all = [...rows.values()];
    const num = (phase) => all.filter((row) => row.phase === phase).length;
    const failed = num("failed") + num("refused");
    const parts = [fill(texts.summary, { done: num("done"), all: all.length })];
    if (failed) parts.push(fill(texts.summaryFailed, { failed }));
    summary.textContent = parts.join(" · ");
    summary.hidden = all.length < 2;
  }

  function drawProgress(row, { bytesUploaded, bytesTotal }) {
    const now = performance.now();
    if (!["waiting", "sending", "stalled"].includes(row.phase)) return;
    row.samples.push([now, bytesUploaded]);
    while (now - row.samples[0][0] > SPEED_WINDOW_MS) row.samples.shift();
    if (now - row.drawnAt < REDRAW_MS && bytesUploaded < bytesTotal) return;
    row.drawnAt = now;
    row.part("progress").value = (100 * bytesUploaded) / bytesTotal;
    if (bytesUploaded >= bytesTotal) {
      setPhase(row, "finishing", texts.finishing);
      return;
    }
    const [then, bytesThen] = row.samples[0];
    const speed = now - then > 500 ? ((bytesUploaded - bytesThen) * 1000) / (now - then) : 0;
    const known = { done: size(bytesUploaded), total: size(bytesTotal) };
    const sentence = speed
      ? fill(texts.sendingAt, {
        ...known, speed: `${size(speed)}/s`, left: duration((bytesTotal - bytesUploaded) / speed),
      })
      : fill(texts.sending, known);
    if (row.phase === "sending") row.part("state").textContent = sentence;
    else setPhase(row, "sending", sentence);
  }

  function refuse(name, bytes, sentence) {
    const row = addRow(name, bytes);
    const key = Symbol(name);
    rows.set(key, row);
    row.part("progress").hidden = true;
    setPhase(row, "refused", sentence);
    announce(`${name}: ${sentence}`);
    row.part("dismiss").addEventListener("click", () => removeRow(key));
  }

  function removeRow(key) {
    const row = rows.get(key);
    rows.delete(key);
    row?.element.remove();
    form.querySelector("[data-upload-queue]").hidden = rows.size === 0;
    drawSummary();
    form.querySelector("[data-file-input]").focus();
  }

  // --- Uppy -------------------------------------------------------------------------------------------------

  const uppy = new UppyBundle.Uppy({
    autoProceed: true,
    restrictions: { maxFileSize: Number(form.dataset.maxBytes) },
    // A file that did not go through is chosen again instead of being in the list already.
    onBeforeFileAdded: ({ id }, known) => {
      const isOver = ["failed", "refused"].includes(rows.get(id)?.phase);
      if (isOver) {
        uppy.removeFile(id);
        numAdded -= 1;
      }
      return isOver || !(id in known);
    },
  });
  uppy.use(PartUploader, {
    createUrl: form.dataset.createUrl, csrfToken, texts, maxFilesInFlight: MAX_FILES_IN_FLIGHT,
  });
  uppy.use(UppyBundle.DropTarget, { target: document.body });

  uppy.on("restriction-failed", (file, error) => {
    const tooLarge = file?.size > Number(form.dataset.maxBytes);
    const name = file?.name ?? "";
    refuse(name, file?.size, tooLarge ? fill(texts.tooLarge, { size: size(Number(form.dataset.maxBytes)) }) : texts.twice);
    console.info(error);
  });

  uppy.on("file-added", (file) => {
    numAdded += 1;
    const row = addRow(file.name, file.size);
    rows.set(file.id, row);
    row.part("pause").addEventListener("click", () => uppy.pauseResume(file.id));
    row.part("resume").addEventListener("click", () => uppy.pauseResume(file.id));
    row.part("retry").addEventListener("click", () => {
      setPhase(row, "waiting", texts.waiting);
      uppy.retryUpload(file.id);
    });
    row.part("cancel").addEventListener("click", () => {
      memory.change((all) => delete all[memory.name(file)]);
      uppy.removeFile(file.id);
      announce(fill(texts.cancelled, { name: file.name }));
    });
    row.part("dismiss").addEventListener("click", () => uppy.removeFile(file.id));
    setPhase(row, "waiting", texts.waiting);
  });

  uppy.on("file-removed", (file) => removeRow(file.id));

  uppy.on("part-uploader:begun", (file, upload) => {
    resume.hidden = true;
    memory.change((all) => {
      const known = all[memory.name(file)];
      all[memory.name(file)] = { name: file.name, percent: known?.percent ?? 0, abortUrl: upload.urls.abort };
    });
  });

  // Said once for each time that something goes away, not with every try.
  uppy.on("part-uploader:waiting", (file, where) => {
    const row = rows.get(file.id);
    if (!row || !["waiting", "sending", "stalled", "finishing"].includes(row.phase)) return;
    const sentence = texts[`${where}Away`];
    if (row.phase === "stalled" && row.part("state").textContent === sentence) return;
    row.samples = [];
    setPhase(row, "stalled", sentence);
    announce(`${file.name}: ${sentence}`);
  });

  uppy.on("upload-progress", (file, progress) => {
    const row = rows.get(file.id);
    if (!row) return;
    drawProgress(row, progress);
    const percent = Math.floor((100 * progress.bytesUploaded) / progress.bytesTotal);
    if (percent === row.percent) return;
    row.percent = percent;
    memory.change((all) => {
      if (all[memory.name(file)]) all[memory.name(file)].percent = percent;
    });
  });

  uppy.on("upload-pause", (file, isPaused) => {
    const row = rows.get(file.id);
    row.samples = [];
    if (isPaused) setPhase(row, "paused", texts.paused);
    else setPhase(row, "waiting", texts.waiting);
  });

  uppy.on("upload-success", (file, { body }) => {
    const row = rows.get(file.id);
    memory.change((all) => delete all[memory.name(file)]);
    row.part("open").href = body.video_url;
    row.part("progress").value = 100;
    setPhase(row, "done", texts.done);
    announce(fill(texts.announceDone, { name: file.name }));
    if (numAdded === 1 && rows.size === 1) {
      window.location.assign(body.video_url);
      return;
    }
    document.dispatchEvent(new Event("upload-finished"));
  });

  uppy.on("upload-error", (file, error) => {
    const row = rows.get(file.id);
    const sentence = error instanceof UploadError ? error.message : texts.refused;
    row.part("progress").hidden = error.canRetry === false;
    setPhase(row, error.canRetry === false ? "refused" : "failed", sentence);
    announce(`${file.name}: ${sentence}`);
  });

  // What has arrived is kept, but nothing is sent while the page is closed.
  window.addEventListener("beforeunload", (event) => {
    const isSending = [...rows.values()].some((row) => ["waiting", "sending", "stalled", "finishing"].includes(row.phase));
    if (isSending) event.preventDefault();
  });

  // --- The form ---------------------------------------------------------------------------------------------

  const input = form.querySelector("[data-file-input]");
  input.multiple = true;
  input.addEventListener("change", () => {
    uppy.addFiles([...input.files].map((file) => ({ source: "picker", name: file.name, type: file.type, data: file })));
    input.value = ""; // the same file can be picked again
  });
  form.addEventListener("submit", (event) => event.preventDefault());
  for (const element of form.querySelectorAll("[data-with-script]")) element.hidden = false;
  for (const element of form.querySelectorAll("[data-without-script]")) element.hidden = true;
  showUnfinished();
});
