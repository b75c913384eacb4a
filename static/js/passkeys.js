/** Says in plain words why a passkey could not be made or used; allauth's scripts only tell the console. */
"use strict";

document.addEventListener("allauth.error", (event) => {
  const problem = document.querySelector("[data-passkey-problem]");
  if (!problem) return;
  event.preventDefault();
  const texts = { SecurityError: "textAddress", TypeError: "textAddress", InvalidStateError: "textKnown" };
  problem.textContent = problem.dataset[texts[event.detail.exception.name] ?? "textOther"];
  problem.hidden = false;
});
