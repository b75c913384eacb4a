/** Remembers whether a person wants light or dark; without a choice the device decides. */
"use strict";

(() => {
  const CHOICES = ["auto", "light", "dark"];

  function remembered() {
    try {
      const choice = localStorage.getItem("theme");
      return CHOICES.includes(choice) ? choice : "auto";
    } catch {
      return "auto"; // storage can be forbidden
    }
  }

  function apply(choice) {
    if (choice === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = choice;
    for (const button of document.querySelectorAll("[data-theme-switch]")) {
      button.hidden = false;
      button.dataset.choice = choice;
      button.querySelector("[data-theme-label]").textContent =
        button.dataset[`label${choice[0].toUpperCase()}${choice.slice(1)}`];
    }
  }

  apply(remembered());
  document.addEventListener("DOMContentLoaded", () => apply(remembered()));
  document.addEventListener("click", (event) => {
    if (!event.target.closest?.("[data-theme-switch]")) return;
    const next = CHOICES[(CHOICES.indexOf(remembered()) + 1) % CHOICES.length];
    try {
      localStorage.setItem("theme", next);
    } catch {
      // The choice then lasts until the next page.
    }
    apply(next);
  });
})();
