/**
 * Attaches behaviours to elements by selector: those on the page, and those that fragments bring later.
 *
 *     Behaviours.add("[data-menu]", (element) => { ... })
 */
"use strict";

const Behaviours = (() => {
  const behaviours = [];

  function attachOne({ selector, start, seen }, root) {
    const inside = root.querySelectorAll?.(selector) ?? [];
    const found = root.matches?.(selector) ? [root, ...inside] : inside;
    for (const element of found) {
      if (seen.has(element)) continue;
      seen.add(element);
      start(element);
    }
  }

  function attach(root) {
    for (const behaviour of behaviours) attachOne(behaviour, root);
  }

  function add(selector, start) {
    const behaviour = { selector, start, seen: new WeakSet() };
    behaviours.push(behaviour);
    attachOne(behaviour, document);
  }

  document.addEventListener("htmx:load", (event) => attach(event.target));
  return { add, attach };
})();

/** Says a sentence to people who hear the page; the newest one wins. */
function announce(sentence) {
  const announcer = document.getElementById("announcer");
  if (announcer && sentence) announcer.textContent = sentence;
}
