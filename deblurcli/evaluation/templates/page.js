"use strict";
// The before/after slider: drag anywhere on the picture, or move the handle with the keyboard.
for (const figure of document.querySelectorAll(".compare")) {
  const canvas = figure.querySelector(".canvas");
  const handle = figure.querySelector(".handle");
  const layers = [...figure.querySelectorAll(".layer")];
  const tags = { left: figure.querySelector(".on-left"), right: figure.querySelector(".on-right") };
  const shown = { left: 0, right: 1 };
  let at = 50;

  const label = (side) => layers[shown[side]].dataset.label;

  function moveTo(percent) {
    at = Math.min(100, Math.max(0, percent));
    canvas.style.setProperty("--at", at + "%");
    const whole = Math.round(at);
    handle.setAttribute("aria-valuenow", whole);
    handle.setAttribute(
      "aria-valuetext",
      whole + " % " + label("left") + ", " + (100 - whole) + " % " + label("right"),
    );
  }

  function show(side, index) {
    const other = side === "left" ? "right" : "left";
    if (shown[other] === index) shown[other] = shown[side]; // the two change places
    shown[side] = index;
    layers.forEach((layer, i) => {
      layer.classList.toggle("left", i === shown.left);
      layer.classList.toggle("right", i === shown.right);
      layer.setAttribute("aria-hidden", i !== shown.left && i !== shown.right);
    });
    for (const one of ["left", "right"]) tags[one].textContent = label(one);
    for (const button of figure.querySelectorAll("button[data-side]")) {
      const pressed = shown[button.dataset.side] === Number(button.dataset.index);
      button.setAttribute("aria-pressed", pressed);
    }
    moveTo(at);
  }

  function follow(event) {
    const box = canvas.getBoundingClientRect();
    moveTo(((event.clientX - box.left) / box.width) * 100);
  }

  let dragging = false;
  canvas.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    // At full size a finger on the picture scrolls it; only the handle is dragged.
    if (figure.classList.contains("full") && !handle.contains(event.target)) return;
    dragging = true;
    canvas.setPointerCapture(event.pointerId);
    handle.focus({ preventScroll: true });
    event.preventDefault();
    follow(event);
  });
  canvas.addEventListener("pointermove", (event) => { if (dragging) follow(event); });
  for (const end of ["pointerup", "pointercancel", "lostpointercapture"]) {
    canvas.addEventListener(end, () => { dragging = false; });
  }

  handle.addEventListener("keydown", (event) => {
    const step = event.shiftKey ? 10 : 1;
    const targets = {
      ArrowLeft: at - step, ArrowDown: at - step, ArrowRight: at + step, ArrowUp: at + step,
      PageDown: at - 10, PageUp: at + 10, Home: 0, End: 100,
    };
    if (!(event.key in targets) || event.ctrlKey || event.altKey || event.metaKey) return;
    event.preventDefault();
    moveTo(targets[event.key]);
  });

  for (const button of figure.querySelectorAll("button[data-side]")) {
    button.addEventListener("click", () => show(button.dataset.side, Number(button.dataset.index)));
  }
  const zoom = figure.querySelector(".zoom");
  zoom.addEventListener("click", () => {
    const full = figure.classList.toggle("full");
    zoom.setAttribute("aria-pressed", full);
    const stage = figure.querySelector(".stage");
    if (full) {
      stage.tabIndex = 0; // so that the arrow keys can scroll it
      stage.scrollLeft = (stage.scrollWidth - stage.clientWidth) / 2;
      stage.scrollTop = (stage.scrollHeight - stage.clientHeight) / 2;
    } else {
      stage.removeAttribute("tabindex");
    }
  });
  show("left", 0);
}
