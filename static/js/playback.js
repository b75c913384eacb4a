/**
 * Says why videos and pictures of a result do not show, and brings them back when they can.
 *
 * The browser only knows that a file did not come. The site knows whether the storage answers: the address of the
 * download, asked for its head, leads on (then this browser cannot play the file), or answers 503.
 */
"use strict";

Behaviours.add("[data-playback]", (element) => {
  const RETRY_MS = 10_000;
  const notice = element.querySelector("[data-playback-notice]");
  const button = notice.querySelector("[data-playback-retry]");
  const media = [...element.querySelectorAll("video, img")];
  const text = element.dataset;
  let timer = null;
  let isAsking = false;

  async function state() {
    try {
      const answer = await fetch(text.playback, { method: "HEAD", redirect: "manual", cache: "no-store" });
      if (answer.type === "opaqueredirect") return "there";
      return answer.status === 404 || answer.status === 410 ? "gone" : "away";
    } catch {
      return "away";
    }
  }

  function show(sentence, canRetry) {
    notice.querySelector("[data-playback-sentence]").textContent = sentence;
    button.hidden = !canRetry;
    notice.hidden = false;
  }

  async function onError() {
    if (isAsking) return;
    isAsking = true;
    const found = await state();
    isAsking = false;
    if (found === "there") show(text.textUnplayable, false);
    else if (found === "gone") show(text.textGone, false);
    else {
      show(text.textAway, true);
      clearTimeout(timer);
      timer = setTimeout(tryAgain, RETRY_MS);
    }
  }

  async function tryAgain() {
    clearTimeout(timer);
    if ((await state()) === "there") load();
    else onError();
  }

  function load() {
    notice.hidden = true;
    for (const each of media) {
      if (each instanceof HTMLImageElement) {
        if (!each.naturalWidth) each.src = each.src; // eslint-disable-line no-self-assign -- loads it again
      } else if (each.error) {
        const seconds = each.currentTime;
        each.addEventListener("loadedmetadata", () => { each.currentTime = seconds; }, { once: true });
        each.load();
      }
    }
  }

  button.addEventListener("click", tryAgain);
  for (const each of media) {
    each.addEventListener("error", onError);
    // It may have failed before this script came.
    if (each.error || (each instanceof HTMLImageElement && each.complete && !each.naturalWidth)) onError();
  }
});
