/** Shows the value of a range beside its label while it is moved; shows forms that take values from another form. */
"use strict";

Behaviours.add("[data-range]", (range) => {
  const value = document.querySelector(`output[for="${range.id}"]`);
  range.addEventListener("input", () => { value.textContent = range.value; });
});

Behaviours.add("[data-needs-scripts]", (form) => { form.hidden = false; });
