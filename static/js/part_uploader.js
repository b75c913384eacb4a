/**
 * Uppy's uploader for the site's protocol: a file goes in parts, and only parts that are missing are sent.
 *
 *     POST   create          -> where the parts go; for a file that was begun before, the same upload again
 *     GET    parts           -> what has arrived, and whether it is one file already
 *     POST   parts/<n>/      -> a signed address for part n, which takes the bytes by PUT: on this site, or straight
 *                               into the bucket; signed with the part's SHA-256, it takes no other bytes
 *     POST   complete        -> the video's page
 *     DELETE abort           -> forgets it
 *
 * A site, a storage or a device that is away is waited for: `part-uploader:waiting` says for which. When it stays away,
 * the file fails with a reason, and the next try goes on where this one stopped.
 */
"use strict";

/** An error whose message is a sentence for people; `canRetry` when the same file may go through next time. */
class UploadError extends Error {
  constructor(message, { canRetry = true } = {}) {
    super(message);
    this.canRetry = canRetry;
  }
}

/** A fault of the connection or a server, which a later try may not meet; `where` is what did not answer. */
class RetryableError extends Error {
  constructor(where, { seconds = 0 } = {}) {
    super(where);
    this.where = where;
    this.seconds = seconds;
  }
}

/** The site or the storage knows other parts than this page does: what is there has to be asked anew. */
class StaleError extends UploadError {}

class PartUploader extends UppyBundle.BasePlugin {
  /** So long something may be away before a file fails. */
  static PATIENCE_MS = 5 * 60_000;
  static LONGEST_PAUSE_MS = 10_000;
  /** An answer that takes longer will not come; joining the parts of a large file may take minutes. */
  static SILENCE_MS = 60_000;
  static JOIN_MS = 10 * 60_000;
  static MAX_ROUNDS = 3;
  // Browsers keep their cryptography from pages that are not secure, such as a laptop's in the local network.
  static #canHash = Boolean(globalThis.crypto?.subtle);

  #queue;

  constructor(uppy, opts) {
    super(uppy, opts);
    this.id = "PartUploader";
    this.type = "uploader";
    // One part of a file at a time: an interruption then costs at most one part.
    this.#queue = new UppyBundle.TaskQueue({ concurrency: opts.maxFilesInFlight });
  }

  install() {
    this.uppy.setState({ capabilities: { ...this.uppy.getState().capabilities, resumableUploads: true } });
    this.uppy.addUploader(this.#upload);
  }

  #upload = async (ids) => {
    const files = this.uppy.getFilesByIds(ids).filter((file) => !file.error && !file.progress.uploadComplete);
    this.uppy.emit("upload-start", files);
    await Promise.allSettled(files.map((file) => this.#uploadFile(file)));
  };

  /** Resolves when the file has arrived, failed or was removed; a pause gives its place in the queue away. */
  #uploadFile(file) {
    return new Promise((resolve) => {
      const job = { upload: null, controller: null, isOver: false };

      const onPause = (paused, isPaused) => {
        if (paused?.id !== file.id || job.isOver) return;
        if (isPaused) job.controller?.abort();
        else run();
      };
      const onRemoved = (removed) => {
        if (removed.id !== file.id || job.isOver) return;
        finish();
        job.controller?.abort();
        if (job.upload) this.#request("DELETE", job.upload.urls.abort).catch(() => {});
      };
      const finish = () => {
        job.isOver = true;
        this.uppy.off("upload-pause", onPause);
        this.uppy.off("file-removed", onRemoved);
        resolve();
      };
      const run = () => {
        const controller = new AbortController();
        job.controller = controller;
        this.#queue.add(async () => {
          if (job.isOver || controller.signal.aborted) return;
          try {
            const answer = await this.#sendFile(file, job, controller.signal);
            finish();
            this.uppy.emit("upload-success", file, { status: 201, body: answer, uploadURL: answer.video_url });
          } catch (error) {
            if (job.isOver || error.name === "AbortError") return;
            finish();
            this.uppy.emit("upload-error", file, error);
          }
        });
      };

      this.uppy.on("upload-pause", onPause);
      this.uppy.on("file-removed", onRemoved);
      run();
    });
  }

  async #sendFile(file, job, signal) {
    for (let round = 1; ; round++) {
      try {
        return await this.#sendWhatIsMissing(file, job, signal);
      } catch (error) {
        if (!(error instanceof StaleError) || round >= PartUploader.MAX_ROUNDS) throw error;
      }
    }
  }

  async #sendWhatIsMissing(file, job, signal) {
    const size = file.data.size;
    const ask = (method, url, body, limits) => this.#request(method, url, body, signal, { file, ...limits });
    const wanted = { file_name: file.name, size_bytes: size };
    if (PartUploader.#canHash) wanted.checksums = "sha256";
    job.upload = await ask("POST", this.opts.createUrl, wanted);
    const { part_bytes: partBytes, urls } = job.upload;
    this.uppy.emit("part-uploader:begun", file, job.upload);

    const numParts = Math.ceil(size / partBytes);
    const etags = new Map();
    const sizeOf = (number) => Math.min(partBytes, size - (number - 1) * partBytes);
    const there = await ask("GET", urls.parts);
    for (const part of there.parts) {
      // A part that broke off on its way is sent again.
      if (part.Size === sizeOf(part.PartNumber)) etags.set(part.PartNumber, part.ETag);
    }
    const sum = () => [...etags.keys()].reduce((bytes, number) => bytes + sizeOf(number), 0);
    const report = (bytesOfThisPart) =>
      this.uppy.emit("upload-progress", file, {
        uploadStarted: file.progress.uploadStarted ?? Date.now(),
        bytesUploaded: sum() + bytesOfThisPart,
        bytesTotal: size,
      });

    for (let number = 1; number <= numParts && !there.is_joined; number++) {
      report(0);
      if (etags.has(number)) continue;
      const bytes = file.data.slice((number - 1) * partBytes, (number - 1) * partBytes + sizeOf(number));
      etags.set(number, await this.#sendPart(file, `${urls.parts}${number}/`, bytes, report, signal));
    }
    report(size - sum());
    const parts = [...etags].sort(([a], [b]) => a - b).map(([PartNumber, ETag]) => ({ PartNumber, ETag }));
    return ask("POST", urls.complete, { parts }, { milliseconds: PartUploader.JOIN_MS });
  }

  /** Puts one part to a fresh signed address, and returns its tag. */
  #sendPart(file, signUrl, bytes, report, signal) {
    return this.#again(file, signal, async () => {
      const content = await this.#read(bytes);
      const claim = PartUploader.#canHash ? { sha256: await this.#sha256(content) } : {};
      const signed = await this.#request("POST", signUrl, claim, signal, { file });
      return this.#put(signed, content, report, signal);
    });
  }

  #put(signed, content, report, signal) {
    // The file store is the site itself.
    const where = new URL(signed.url, window.location).origin === window.location.origin ? "site" : "storage";
    return new Promise((resolve, reject) => {
      const xhr = new XMLHttpRequest();
      let silence = null;
      const stop = () => xhr.abort();
      const hear = () => {
        clearTimeout(silence);
        silence = setTimeout(() => {
          reject(new RetryableError(where));
          stop();
        }, PartUploader.SILENCE_MS);
      };
      xhr.open("PUT", signed.url);
      for (const [name, value] of Object.entries(signed.headers ?? {})) xhr.setRequestHeader(name, value);
      xhr.upload.onprogress = (event) => {
        hear();
        report(event.loaded);
      };
      xhr.onload = () => {
        if (xhr.status === 404) reject(new StaleError(this.opts.texts.refused));
        else if (xhr.status < 200 || xhr.status > 299) reject(new RetryableError(where));
        else resolve((xhr.getResponseHeader("ETag") ?? "").replaceAll('"', ""));
      };
      xhr.onerror = () => reject(new RetryableError(where));
      xhr.onabort = () => reject(new DOMException("stopped", "AbortError"));
      xhr.onloadend = () => {
        clearTimeout(silence);
        signal.removeEventListener("abort", stop);
      };
      signal.addEventListener("abort", stop);
      hear();
      xhr.send(content);
    });
  }

  /** The bytes of one part, which is small enough for memory. */
  async #read(bytes) {
    try {
      return await bytes.arrayBuffer();
    } catch {
      throw new UploadError(this.opts.texts.unreadable);
    }
  }

  /** The Base64 SHA-256 of one part. */
  async #sha256(content) {
    const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", content));
    return btoa(String.fromCharCode(...digest));
  }

  /** Asks the site; a refusal becomes an `UploadError` with the site's sentence. */
  #request(method, url, body, signal, { file, milliseconds = PartUploader.SILENCE_MS } = {}) {
    return this.#again(file, signal, async () => {
      let response;
      const limits = [signal, AbortSignal.timeout(milliseconds)].filter(Boolean);
      try {
        response = await fetch(url, {
          method,
          signal: AbortSignal.any(limits),
          headers: { "X-CSRFToken": this.opts.csrfToken, Accept: "application/json" },
          body: body === undefined ? undefined : JSON.stringify(body),
        });
      } catch (error) {
        if (error.name === "AbortError") throw error;
        throw new RetryableError("site");
      }
      const answer = response.status === 204 ? {} : await response.json().catch(() => ({}));
      if (response.status === 429) {
        throw new RetryableError("busy", { seconds: Number(response.headers.get("Retry-After")) || 0 });
      }
      if (response.status >= 500) throw new RetryableError(answer.is_storage_away ? "storage" : "site");
      if (response.redirected || response.status === 403) throw new UploadError(this.opts.texts.notAllowed);
      if (response.status === 404 || response.status === 409) {
        throw new StaleError(answer.error || this.opts.texts.refused);
      }
      if (!response.ok) throw new UploadError(answer.error || this.opts.texts.refused, { canRetry: !answer.error });
      return answer;
    });
  }

  /** Tries with growing pauses until patience ends; while the device is offline, the time does not count. */
  async #again(file, signal, attempt) {
    let since = null;
    for (let tried = 1; ; tried++) {
      signal?.throwIfAborted();
      try {
        return await attempt();
      } catch (error) {
        if (!(error instanceof RetryableError)) throw error;
        const now = Date.now();
        const isOffline = !navigator.onLine;
        since = isOffline ? now : (since ?? now);
        if (now - since >= PartUploader.PATIENCE_MS) throw new UploadError(this.opts.texts[`${error.where}Stayed`]);
        if (file) this.uppy.emit("part-uploader:waiting", file, isOffline ? "device" : error.where);
        const pause = Math.min(500 * 2 ** tried, PartUploader.LONGEST_PAUSE_MS) * (0.75 + Math.random() / 2);
        await this.#pause(Math.max(pause, 1000 * error.seconds), signal);
      }
    }
  }

  /** Waits; a network that is back ends it early. */
  #pause(milliseconds, signal) {
    return new Promise((resolve, reject) => {
      const end = (settle) => {
        clearTimeout(timer);
        window.removeEventListener("online", goOn);
        signal?.removeEventListener("abort", stop);
        settle();
      };
      const goOn = () => end(resolve);
      const stop = () => end(() => reject(new DOMException("stopped", "AbortError")));
      const timer = setTimeout(goOn, milliseconds);
      window.addEventListener("online", goOn);
      signal?.addEventListener("abort", stop);
    });
  }
}
