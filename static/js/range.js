/** Shows the value of a range beside its label while it is moved. */
"use strict";

Behaviours.add("[data-range]", (range) => {
  const value = document.querySelector(`output[for="${range.id}"]`);
  range.addEventListener("input", () => { value.textContent = range.value; });
});
