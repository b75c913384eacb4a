/** Moves the line between two pictures; a range input brings pointer, touch and keyboard. */
"use strict";

Behaviours.add("[data-split]", (frame) => {
  const range = frame.querySelector("input");
  if (!range) return;
  const draw = () => frame.style.setProperty("--split", `${range.value}%`);
  range.hidden = false;
  range.addEventListener("input", draw);
  draw();
});
