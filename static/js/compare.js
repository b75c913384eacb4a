/**
 * Plays before and after in step, under a line that divides them or side by side.
 *
 * The result leads. The source follows: far off it jumps, a little off it plays slightly faster or slower until
 * both show the same frame. Standing still, both stand on the middle of the same frame. The result of a part begins
 * later in the source: all times are the result's.
 */
"use strict";

Behaviours.add("[data-compare]", (player) => {
  const part = (name) => player.querySelector(`[data-${name}]`);
  const stage = part("stage");
  const after = part("after");
  const before = part("before");
  const divider = part("divider");
  const seek = part("seek");
  const text = player.dataset;

  const [numerator, denominator] = text.frameRate.split("/").map(Number);
  const frameRate = numerator && denominator ? numerator / denominator : 25;
  const frame = 1 / frameRate;
  const sourceStart = Number(text.sourceStart);

  let wantsToPlay = false;
  const waiting = new Set();
  let isSeekingByHand = false;
  let split = 50;
  const pan = { x: 50, y: 50 };

  // --- Time -------------------------------------------------------------------------------------------------

  const duration = () => Math.min(after.duration || 0, before.duration - sourceStart || Infinity) || 0;
  const frameAt = (seconds) => Math.floor(seconds * frameRate + 0.001);
  const middleOf = (index) => (index + 0.5) * frame;

  function clock(seconds) {
    const whole = Math.floor(seconds);
    const [hours, minutes, rest] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
    const tail = `${String(rest).padStart(2, "0")}`;
    return hours ? `${hours}:${String(minutes).padStart(2, "0")}:${tail}` : `${minutes}:${tail}`;
  }

  function drawTime() {
    const total = duration();
    part("time").textContent = `${clock(after.currentTime)} / ${clock(total)}`;
    if (isSeekingByHand || !total) return;
    seek.value = Math.round((1000 * after.currentTime) / total);
    seek.setAttribute("aria-valuetext", clock(after.currentTime));
  }

  function standOn(index) {
    const last = Math.max(0, Math.floor(duration() * frameRate - 0.5));
    const seconds = middleOf(Math.min(Math.max(index, 0), last));
    after.currentTime = seconds;
    before.currentTime = sourceStart + seconds;
    drawTime();
  }

  // What each video shows right now, in its own time; without the callback the clock has to do.
  const shown = new Map();
  const hasFrameCallback = "requestVideoFrameCallback" in HTMLVideoElement.prototype;

  function watchFrames(video) {
    if (!hasFrameCallback) return;
    const onFrame = (now, { mediaTime, expectedDisplayTime }) => {
      shown.set(video, { mediaTime, now: expectedDisplayTime });
      if (video === after) keepInStep();
      video.requestVideoFrameCallback(onFrame);
    };
    video.requestVideoFrameCallback(onFrame);
  }

  /** How far the source is ahead of the result, in seconds. */
  function drift() {
    const [a, b] = [shown.get(after), shown.get(before)];
    if (!a || !b || Math.abs(a.now - b.now) > 500) return before.currentTime - sourceStart - after.currentTime;
    // Both frames came on screen at slightly different moments: compare them at the same one.
    return b.mediaTime - sourceStart + ((a.now - b.now) / 1000) * before.playbackRate - a.mediaTime;
  }

  function keepInStep() {
    if (after.paused || before.paused || before.seeking || after.seeking) return;
    const ahead = drift();
    if (Math.abs(ahead) > 0.25) {
      before.currentTime = sourceStart + after.currentTime;
      before.playbackRate = 1;
    } else if (Math.abs(ahead) > frame * 0.25) {
      before.playbackRate = Math.min(1.25, Math.max(0.8, 1 - ahead * 3));
    } else if (before.playbackRate !== 1) {
      before.playbackRate = 1;
    }
  }

  // --- Playing ------------------------------------------------------------------------------------------------

  function drawPlaying() {
    part("play").classList.toggle("is-playing", wantsToPlay);
    part("play-label").textContent = wantsToPlay ? text.textPause : text.textPlay;
  }

  async function play() {
    wantsToPlay = true;
    drawPlaying();
    if (after.ended || after.currentTime >= duration() - frame) standOn(0);
    before.currentTime = sourceStart + after.currentTime;
    try {
      await Promise.all([after.play(), before.play()]);
    } catch (error) {
      if (error.name === "NotAllowedError") pause();
    }
  }

  function pause() {
    wantsToPlay = false;
    waiting.clear();
    const seen = shown.get(after)?.mediaTime ?? after.currentTime;
    after.pause();
    before.pause();
    before.playbackRate = 1;
    standOn(frameAt(Math.abs(seen - after.currentTime) < 0.2 ? seen : after.currentTime));
    drawPlaying();
  }

  const toggle = () => (wantsToPlay ? pause() : play());

  function step(by) {
    if (wantsToPlay) pause();
    standOn(frameAt(after.currentTime) + by);
  }

  function onEnd() {
    if (!wantsToPlay) return;
    if (part("loop").getAttribute("aria-pressed") === "true") {
      standOn(0);
      play();
    } else {
      pause();
    }
  }

  // One that has to wait for data makes the other wait, too; when neither waits, both go on.
  function goOn(video) {
    waiting.delete(video);
    if (!wantsToPlay || waiting.size) return;
    for (const each of [after, before]) if (each.paused && !each.ended) each.play().catch(() => {});
  }
  for (const [video, other] of [[after, before], [before, after]]) {
    video.addEventListener("waiting", () => {
      if (!wantsToPlay || video.ended) return;
      waiting.add(video);
      if (!waiting.has(other)) other.pause();
    });
    video.addEventListener("canplay", () => goOn(video));
    video.addEventListener("playing", () => goOn(video));
    watchFrames(video);
  }
  after.addEventListener("ended", onEnd);
  before.addEventListener("ended", () => {
    // The shorter of the two ends both; a difference of less than a frame is none.
    if (after.duration - after.currentTime > frame) onEnd();
  });
  after.addEventListener("timeupdate", () => {
    drawTime();
    if (!hasFrameCallback) keepInStep();
  });
  for (const video of [after, before]) video.addEventListener("loadedmetadata", drawTime);
  if (sourceStart) {
    if (before.readyState) standOn(0);
    else before.addEventListener("loadedmetadata", () => standOn(0), { once: true });
  }

  // --- The line ------------------------------------------------------------------------------------------------

  function setSplit(percent) {
    split = Math.min(100, Math.max(0, percent));
    stage.style.setProperty("--split", `${split}%`);
    const shownPart = Math.round(split);
    divider.setAttribute("aria-valuenow", shownPart);
    divider.setAttribute(
      "aria-valuetext",
      text.textSplit.replace("{before}", shownPart).replace("{after}", 100 - shownPart),
    );
  }

  const isSideBySide = () => player.classList.contains("is-side-by-side");
  const zoom = () => Number(part("zoom").value);

  function moveSplitTo(event) {
    const box = stage.getBoundingClientRect();
    setSplit((100 * (event.clientX - box.left)) / box.width);
  }

  let drag = null;
  stage.addEventListener("pointerdown", (event) => {
    if (event.button) return;
    const onLine = event.target.closest("[data-divider]");
    if (!onLine && (zoom() > 1 || isSideBySide())) drag = { kind: "pan", x: event.clientX, y: event.clientY, from: { ...pan } };
    else drag = { kind: "split" };
    if (drag.kind === "pan" && zoom() === 1) {
      drag = null;
      return;
    }
    stage.setPointerCapture(event.pointerId);
    if (drag.kind === "split") {
      moveSplitTo(event);
      divider.focus({ preventScroll: true });
    }
    event.preventDefault();
  });
  stage.addEventListener("pointermove", (event) => {
    if (!drag) return;
    if (drag.kind === "split") {
      moveSplitTo(event);
      return;
    }
    const box = after.parentElement.getBoundingClientRect();
    const scale = 100 / (zoom() - 1);
    setPan(drag.from.x - ((event.clientX - drag.x) / box.width) * scale, drag.from.y - ((event.clientY - drag.y) / box.height) * scale);
  });
  for (const name of ["pointerup", "pointercancel"]) stage.addEventListener(name, () => { drag = null; });

  divider.addEventListener("keydown", (event) => {
    const by = event.shiftKey ? 10 : 2;
    const moves = {
      ArrowLeft: split - by, ArrowDown: split - by, ArrowRight: split + by, ArrowUp: split + by,
      PageDown: split - 10, PageUp: split + 10, Home: 0, End: 100,
    };
    if (!(event.key in moves)) return;
    setSplit(moves[event.key]);
    event.preventDefault();
    event.stopPropagation();
  });

  function setPan(x, y) {
    pan.x = Math.min(100, Math.max(0, x));
    pan.y = Math.min(100, Math.max(0, y));
    stage.style.setProperty("--pan-x", `${pan.x}%`);
    stage.style.setProperty("--pan-y", `${pan.y}%`);
  }

  // --- Buttons and keys ----------------------------------------------------------------------------------------

  part("play").addEventListener("click", toggle);
  for (const button of player.querySelectorAll("[data-step]")) {
    button.addEventListener("click", () => step(Number(button.dataset.step)));
  }
  seek.addEventListener("input", () => {
    isSeekingByHand = true;
    standOn(frameAt((duration() * seek.value) / 1000));
  });
  seek.addEventListener("change", () => {
    isSeekingByHand = false;
    if (wantsToPlay) play();
  });
  function togglePressed(button) {
    const pressed = button.getAttribute("aria-pressed") !== "true";
    button.setAttribute("aria-pressed", String(pressed));
    return pressed;
  }
  part("loop").addEventListener("click", (event) => togglePressed(event.currentTarget));
  part("side-by-side").addEventListener("click", (event) => {
    const isOn = togglePressed(event.currentTarget);
    player.classList.toggle("is-side-by-side", isOn);
    divider.hidden = isOn;
  });
  part("sound").addEventListener("change", (event) => {
    after.muted = event.target.value !== "after";
    before.muted = event.target.value !== "before";
  });
  part("zoom").addEventListener("change", () => {
    stage.style.setProperty("--zoom", zoom());
    stage.classList.toggle("is-zoomed", zoom() > 1);
    setPan(50, 50);
  });
  const fullscreen = part("fullscreen");
  fullscreen.hidden = !document.fullscreenEnabled;
  fullscreen.addEventListener("click", () => {
    if (document.fullscreenElement) document.exitFullscreen();
    else player.requestFullscreen();
  });

  player.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const isControl = event.target.matches("button, select, input");
    if (event.key === "," || event.key === ".") step(event.key === "." ? 1 : -1);
    else if (event.key === " " && !isControl) toggle();
    else if (event.key === "k") toggle();
    else return;
    event.preventDefault();
  });

  // --- Begin ---------------------------------------------------------------------------------------------------

  stage.style.setProperty("--picture-width", text.width);
  stage.style.setProperty("--picture-height", text.height);
  player.classList.add("is-ready");
  player.classList.toggle("is-portrait", Number(text.height) > Number(text.width));
  for (const element of player.querySelectorAll("[data-controls]")) element.hidden = false;
  divider.hidden = false;
  for (const video of [after, before]) video.controls = false;
  setSplit(50);
  setPan(50, 50);
  drawTime();
});
