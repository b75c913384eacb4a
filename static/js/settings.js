/** Shows the value of a range beside its label while it is moved; shows forms that take values from another form. */
"use strict";

Behaviours.add("[data-range]", (range) => {
  const value = document.querySelector(`output[for="${range.id}"]`);
  range.addEventListener("input", () => { value.textContent = range.value; });
});

// Going back or loading again, browsers bring back what was chosen, but neither what it costs nor how it is shown.
window.addEventListener("pageshow", () => {
  const change = (element, name) => element.dispatchEvent(new Event(name, { bubbles: true }));
  for (const range of document.querySelectorAll("#choices input[type=range]")) {
    if (range.value !== range.defaultValue) change(range, "input");
  }
  if (document.querySelector("#choices :checked:not(:default)")) {
    change(document.querySelector(".presets :checked"), "change");
  }
});

Behaviours.add("[data-needs-scripts]", (form) => { form.hidden = false; });
