/**
 * Says why htmx got no answer that it can show, at the top of the page and aloud: with the sentence of the error's own
 * page, or with one for a site that did not answer. What the page asks for by itself is asked again, and says nothing.
 */
"use strict";

(() => {
  let shown = null;

  function say({ requestConfig, xhr }) {
    if (!requestConfig.triggeringEvent) return;
    const page = new DOMParser().parseFromString(xhr.responseText, "text/html");
    shown = document.getElementById("refusal").content.firstElementChild.cloneNode(true);
    const sentence = page.querySelector(".error-page .page-lead")?.textContent.trim();
    if (sentence) shown.querySelector("p").textContent = sentence;
    document.getElementById("messages").append(shown);
    shown.scrollIntoView({ block: "center" });
  }

  for (const name of ["htmx:responseError", "htmx:sendError", "htmx:timeout"]) {
    document.addEventListener(name, (event) => say(event.detail));
  }
  document.addEventListener("htmx:beforeRequest", (event) => {
    if (event.detail.requestConfig.triggeringEvent) shown?.remove();
  });
})();
