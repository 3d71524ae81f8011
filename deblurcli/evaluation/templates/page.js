"use strict";
// The before/after slider: drag anywhere on the picture, or move the handle with the keyboard.
for (const figure of document.querySelectorAll(".compare")) {
  const stage = figure.querySelector(".stage");
  const scroller = figure.querySelector(".scroller");
  const canvas = figure.querySelector(".canvas");
  const handle = figure.querySelector(".handle");
  const layers = [...figure.querySelectorAll(".layer")];
  const tags = { left: figure.querySelector(".on-left"), right: figure.querySelector(".on-right") };
  const shown = { left: 0, right: 1 };
  let at = 50; // of what is seen, in per cent
  let zoom = 0; // picture pixels to screen pixels; 0 fits the page

  const label = (side) => layers[shown[side]].dataset.label;

  function moveTo(percent) {
    at = Math.min(100, Math.max(0, percent));
    const seen = stage.getBoundingClientRect();
    const cut = seen.left + (seen.width * at) / 100 - canvas.getBoundingClientRect().left;
    stage.style.setProperty("--at", at + "%");
    canvas.style.setProperty("--cut", zoom ? cut + "px" : at + "%");
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
    });
    for (const one of ["left", "right"]) tags[one].textContent = label(one);
    for (const button of figure.querySelectorAll("button[data-side]")) {
      const pressed = shown[button.dataset.side] === Number(button.dataset.index);
      button.setAttribute("aria-pressed", pressed);
    }
    moveTo(at);
  }

  function enlarge(value) {
    const before = scroller.scrollWidth;
    const across = (scroller.scrollLeft + scroller.clientWidth / 2) / before;
    const down = (scroller.scrollTop + scroller.clientHeight / 2) / scroller.scrollHeight;
    zoom = value;
    figure.classList.toggle("zoomed", zoom > 0);
    figure.classList.toggle("magnified", zoom > 1);
    // One pixel of the picture is one of the screen, whatever the page's own scale.
    figure.style.setProperty("--zoom", zoom / window.devicePixelRatio);
    scroller.scrollLeft = across * scroller.scrollWidth - scroller.clientWidth / 2;
    scroller.scrollTop = down * scroller.scrollHeight - scroller.clientHeight / 2;
    if (zoom) scroller.tabIndex = 0; // so that the arrow keys can scroll it
    else scroller.removeAttribute("tabindex");
    for (const button of figure.querySelectorAll("button[data-zoom]")) {
      button.setAttribute("aria-pressed", (Number(button.dataset.zoom) || 0) === zoom);
    }
    moveTo(at);
  }

  function follow(event) {
    const box = stage.getBoundingClientRect();
    moveTo(((event.clientX - box.left) / box.width) * 100);
  }

  let dragging = ""; // the boundary or the picture
  let last = [0, 0];
  stage.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    // Enlarged, a finger on the picture scrolls it, and so does the mouse.
    dragging = !zoom || handle.contains(event.target) ? "boundary" : "picture";
    if (dragging === "picture" && event.pointerType !== "mouse") { dragging = ""; return; }
    const box = scroller.getBoundingClientRect();
    const on_bar = event.clientX - box.left > scroller.clientWidth
      || event.clientY - box.top > scroller.clientHeight;
    if (dragging === "picture" && on_bar) { dragging = ""; return; }
    stage.setPointerCapture(event.pointerId);
    last = [event.clientX, event.clientY];
    event.preventDefault();
    if (dragging === "boundary") { handle.focus({ preventScroll: true }); follow(event); }
  });
  stage.addEventListener("pointermove", (event) => {
    if (dragging === "boundary") follow(event);
    if (dragging === "picture") {
      scroller.scrollBy(last[0] - event.clientX, last[1] - event.clientY);
      last = [event.clientX, event.clientY];
    }
  });
  for (const end of ["pointerup", "pointercancel", "lostpointercapture"]) {
    stage.addEventListener(end, () => { dragging = ""; });
  }
  scroller.addEventListener("scroll", () => moveTo(at));
  window.addEventListener("resize", () => { if (zoom) enlarge(zoom); });

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
  for (const button of figure.querySelectorAll("button[data-zoom]")) {
    button.addEventListener("click", () => enlarge(Number(button.dataset.zoom) || 0));
  }
  show("left", 0);

  // Videos: the first leads, the others are kept in step with it.
  const videos = [...figure.querySelectorAll("video")];
  if (videos.length) playTogether(figure, videos);
}

function playTogether(figure, videos) {
  const [lead, ...others] = videos;
  const frame = 1 / Number(figure.dataset.fps);
  const play = figure.querySelector(".play");
  const seek = figure.querySelector(".seek");
  const time = figure.querySelector(".time");
  const rate = figure.querySelector(".rate");
  let speed = 1;
  let playing = false; // what the reader wants; the videos follow a little later

  function goTo(seconds) {
    const end = Math.max(0, (lead.duration || 0) - frame / 2);
    for (const video of videos) video.currentTime = Math.min(end, Math.max(0, seconds));
  }
  function pause() {
    playing = false;
    for (const video of videos) video.pause();
    goTo(lead.currentTime); // all show the same frame now
    update();
  }
  function keepStep() {
    for (const video of others) {
      const behind = lead.currentTime - video.currentTime;
      // A little is caught up by playing faster; a jump would be seen.
      if (Math.abs(behind) > 0.25) video.currentTime = lead.currentTime;
      video.playbackRate = speed * (1 + Math.min(0.5, Math.max(-0.5, 4 * behind)));
    }
  }
  function update() {
    const now = lead.currentTime;
    seek.max = lead.duration || 1;
    seek.value = now;
    time.textContent = Math.floor(now / 60) + ":" + (now % 60).toFixed(2).padStart(5, "0");
    play.textContent = playing ? "❚❚" : "▶";
    play.setAttribute("aria-label", playing ? "Pause" : "Play");
  }
  function run() {
    for (const video of videos) video.play().catch(() => {}); // paused again at once, say
  }
  function tick() {
    if (!playing) return;
    keepStep();
    update();
    requestAnimationFrame(tick);
  }
  play.addEventListener("click", () => {
    if (playing) { pause(); return; }
    playing = true;
    run();
    tick();
  });
  for (const button of figure.querySelectorAll(".step")) {
    button.addEventListener("click", () => {
      pause();
      goTo(lead.currentTime + Number(button.dataset.frames) * frame);
    });
  }
  seek.addEventListener("input", () => goTo(Number(seek.value)));
  rate.addEventListener("click", () => {
    speed = speed === 1 ? 0.5 : speed === 0.5 ? 0.25 : 1;
    for (const video of videos) video.playbackRate = speed;
    rate.textContent = speed + "×";
  });
  for (const event of ["seeked", "loadedmetadata"]) lead.addEventListener(event, update);
  lead.addEventListener("ended", () => { if (playing) { goTo(0); run(); } });
  lead.addEventListener("loadedmetadata", () => {
    // As it is shown, after any rotation.
    figure.style.setProperty("--w", lead.videoWidth);
    figure.style.setProperty("--h", lead.videoHeight);
  });
  if (lead.readyState > 0) lead.dispatchEvent(new Event("loadedmetadata"));
}
