/**
 * Closes open menus by Escape, by a click outside and when the keyboard leaves them, questions by their own button;
 * opens what hides a wrong field.
 */
"use strict";

Behaviours.add("[data-menu]", (menu) => {
  const close = () => menu.removeAttribute("open");
  document.addEventListener("click", (event) => {
    if (!menu.contains(event.target)) close();
  });
  menu.addEventListener("focusout", ({ relatedTarget: next }) => {
    if (next && !menu.contains(next)) close();
  });
  menu.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || !menu.open) return;
    close();
    menu.querySelector("summary").focus();
  });
});

Behaviours.add("[data-close-details]", (button) => {
  button.addEventListener("click", () => {
    const details = button.closest("details");
    details.open = false;
    details.querySelector("summary").focus();
  });
});

document.addEventListener("invalid", (event) => event.target.closest("details")?.setAttribute("open", ""), true);
