/**
 * Keeps fragments up to date: by the page's socket, by polling while there is none.
 *
 * `data-live`  its next version is morphed in: open questions, focus and playing videos survive.
 * `data-poll`  has more to come; its value is the address that answers with the fragment.
 * `data-state` names the state; a change is announced with the sentence in `data-announcement`.
 * `data-keep`  is left alone by updates, `data-keep-open` keeps what the person opened.
 */
"use strict";

(() => {
  const POLL_MS = 4000;
  let isSocketOpen = false;
  let lastPollAt = 0;
  let pollTimer = null;
  // Requests and pushes are numbered in their order: an answer says how things were when it was asked for.
  let number = 0;
  let lastPush = 0;
  const shownRequests = new Map();

  const states = new Map();

  function rememberStates(root) {
    const changed = [];
    const elements = [...root.querySelectorAll("[data-state][id]")];
    if (root.matches?.("[data-state][id]")) elements.push(root);
    for (const element of elements) {
      const known = states.get(element.id);
      states.set(element.id, element.dataset.state);
      if (known !== undefined && known !== element.dataset.state) changed.push(element);
    }
    return changed;
  }

  function afterChange(root) {
    const changed = rememberStates(root);
    const sentences = changed.map((element) => element.dataset.announcement).filter(Boolean);
    announce([...new Set(sentences)].join(". "));
    if (changed.some((element) => /^(failed|cancelled|lost)/.test(element.dataset.state))) refetchBadge();
  }

  function refetchBadge() {
    const badge = document.getElementById("credit-badge");
    if (badge) refetch(badge, badge.href);
  }

  function morph(target, next) {
    const id = target.id;
    const hadFocus = target.contains(document.activeElement);
    Idiomorph.morph(target, next, {
      morphStyle: "outerHTML",
      callbacks: {
        // What is kept yields to an answer that is about it alone.
        beforeNodeMorphed: (old, fresh) =>
          old === target || !(old.dataset?.keep !== undefined && fresh.dataset?.keep !== undefined),
        beforeAttributeUpdated: (name, node) => !(name === "open" && node.matches("[data-keep-open]")),
      },
    });
    const root = document.getElementById(id);
    if (!root) return;
    htmx.process(root);
    Behaviours.attach(root);
    // What had the focus is gone: the keyboard goes on from here, not from the top of the page.
    if (hadFocus && document.activeElement === document.body) {
      root.closest("[tabindex='-1']")?.focus({ preventScroll: true });
    }
    afterChange(root);
  }

  /** Fetches an element anew. Not by htmx, which reports each request that leaving the page breaks off as an error. */
  async function refetch({ id, dataset }, url) {
    const isPoll = dataset.poll !== undefined;
    const request = (number += 1);
    let response;
    let html;
    try {
      response = await fetch(url, { headers: { "HX-Request": "true" }, cache: "no-store" });
      html = await response.text();
    } catch {
      return; // no connection: the next poll tries again
    }
    // Signed out in the meantime: the page itself asks to sign in.
    if (response.redirected) window.location.reload();
    if (!response.ok || response.redirected) return;
    // What was pushed or answered meanwhile is newer than this answer: a finished restoration must not fall back.
    if (isPoll && lastPush > request) {
      pollSoon();
      return;
    }
    if ((shownRequests.get(id) ?? 0) > request) return;
    shownRequests.set(id, request);
    const next = new DOMParser().parseFromString(html, "text/html").getElementById(id);
    const target = document.getElementById(id);
    if (next && target) morph(target, next);
  }

  function pollSoon() {
    pollTimer ??= setTimeout(pollNow, Math.max(0, lastPollAt + POLL_MS - Date.now()));
  }

  function pollNow() {
    clearTimeout(pollTimer);
    pollTimer = null;
    lastPollAt = Date.now();
    for (const element of document.querySelectorAll("[data-poll]")) refetch(element, element.dataset.poll);
  }
  document.addEventListener("upload-finished", pollNow);

  const pathOf = (address) => new URL(address, window.location).pathname;

  document.addEventListener("htmx:beforeSwap", (event) => {
    const { pathInfo, requestConfig, target, xhr } = event.detail;
    // Signed out in the meantime: the page itself asks to sign in.
    if (pathOf(xhr.responseURL) !== pathOf(pathInfo.finalRequestPath)) {
      event.detail.shouldSwap = false;
      window.location.reload();
      return;
    }
    if (!event.detail.shouldSwap || !target?.matches?.("[data-live]")) return;
    const body = new DOMParser().parseFromString(xhr.responseText, "text/html").body;
    const next = body.querySelector(`#${CSS.escape(target.id)}`);
    if (!next) return;
    event.detail.shouldSwap = false;
    // What the person has done is as new as a push.
    if (requestConfig.verb !== "get") lastPush = number += 1;
    morph(target, next);
  });

  document.addEventListener("htmx:wsBeforeMessage", (event) => {
    event.preventDefault();
    lastPush = number += 1;
    const { body } = new DOMParser().parseFromString(event.detail.message, "text/html");
    let isAllHere = true;
    for (const next of [...body.children]) {
      const target = document.getElementById(next.id);
      if (target) morph(target, next);
      else isAllHere = false;
    }
    // A row that this page does not show yet: fetch the list that it belongs into, not too often.
    if (!isAllHere) pollSoon();
  });

  document.addEventListener("htmx:wsOpen", () => {
    isSocketOpen = true;
    // Whatever changed between the page and this moment was said to nobody.
    pollNow();
  });
  for (const name of ["htmx:wsClose", "htmx:wsError"]) {
    document.addEventListener(name, () => {
      isSocketOpen = false;
    });
  }

  setInterval(() => {
    if (!isSocketOpen && !document.hidden) pollNow();
  }, POLL_MS);
  document.addEventListener("visibilitychange", () => {
    if (!isSocketOpen && !document.hidden) pollNow();
  });

  // A fragment from the socket was rendered without a request, so its plain forms lack the token.
  document.addEventListener("submit", ({ target: form }) => {
    if (form.method !== "post" || form.querySelector("[name=csrfmiddlewaretoken]")) return;
    const token = document.createElement("input");
    token.type = "hidden";
    token.name = "csrfmiddlewaretoken";
    token.value = JSON.parse(document.body.getAttribute("hx-headers"))["X-CSRFToken"];
    form.append(token);
  });

  // The browser's "back" shows a page as it was when it was left: credits are spent since, or the person signed out.
  window.addEventListener("pageshow", ({ persisted }) => {
    const [way] = performance.getEntriesByType("navigation");
    if (!persisted && way?.type !== "back_forward") return;
    refetchBadge();
    pollNow();
  });

  rememberStates(document.body);
})();
