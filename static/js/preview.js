/** Where a preview begins: the slider shows the picture there, and the player's position moves the slider. */
"use strict";

Behaviours.add("[data-preview-start]", (box) => {
  const slider = box.querySelector("[data-start]");
  const player = box.querySelector("video");
  const clock = box.querySelector("[data-clock]");

  function show() {
    const whole = Math.round(slider.value);
    const rest = String(whole % 60).padStart(2, "0");
    const minutes = Math.floor(whole / 60);
    const hours = Math.floor(minutes / 60);
    clock.textContent = hours ? `${hours}:${String(minutes % 60).padStart(2, "0")}:${rest}` : `${minutes}:${rest}`;
    slider.setAttribute("aria-valuetext", clock.textContent);
  }

  // The file is looked into when somebody wants to see where it begins, not before.
  box.addEventListener("toggle", () => {
    if (box.open && player.preload === "none") player.preload = "metadata";
  });
  player.addEventListener("loadedmetadata", () => { player.currentTime = slider.value; });
  player.addEventListener("error", () => { player.hidden = true; });
  // Only positions that the person chose: by playing, or by the player's own bar.
  player.addEventListener("timeupdate", () => {
    if (player.seeking || Math.abs(player.currentTime - slider.value) < 0.1) return;
    slider.value = player.currentTime;
    show();
  });
  slider.addEventListener("input", () => {
    player.pause();
    player.currentTime = slider.value;
    show();
  });
  show();
});
