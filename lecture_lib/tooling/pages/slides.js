const body = document.body, main = document.querySelector("main"), find = (id) => document.getElementById(id);
const slides = [...main.querySelectorAll("section")], notes = [...document.querySelectorAll("aside > div")];
const channel = new BroadcastChannel(location.pathname);  // to the window of the speaker, and back
let at = 0, shown = 0, began = null, touched = 0;
const parts = () => [...slides[at].querySelectorAll(".fragment")];
const name = (slide) => (slide.querySelector(".body :is(h1, h2, h3, h4, p)") || slide).textContent.trim().slice(0, 90);

function draw() {
  const note = notes.findLast((one) => one.dataset.from <= at + 1);
  slides.forEach((slide, index) => slide.classList.toggle("now", index === at));
  parts().forEach((part, index) => part.classList.toggle("shown", index < shown));
  notes.forEach((one) => one.classList.toggle("now", one === note));
  body.classList.toggle("first", at === 0);
  history.replaceState(null, "", `#${at + 1}`);
  find("number").textContent = `${at + 1} / ${slides.length}`;
  find("next").textContent = at + 1 < slides.length ? `Next: ${name(slides[at + 1])}` : "The last slide.";
  find("bar").style.width = `${100 * (at + 1) / slides.length}%`;
  main.scrollTop = 0;
  tick();
}

function tick() {
  const gone = began ? (Date.now() - began) / 60000 : 0;
  find("clock").textContent = `minute ${Math.floor(gone)} of ${total}`;
  find("clock").classList.toggle("late", gone > starts[at + 1] + 2);
  find("due").textContent = `this slide: ${Math.round(starts[at])} to ${Math.round(starts[at + 1])}`;
}

function go(slide, fragments = 0, told = false) {
  at = Math.max(0, Math.min(slides.length - 1, slide || 0));
  shown = Math.max(0, Math.min(parts().length, fragments));
  began = began || (at && Date.now());
  draw();
  if (!told) channel.postMessage({ at, shown, began });
}

const on = () => shown < parts().length ? go(at, shown + 1) : at + 1 < slides.length && go(at + 1);
const back = () => shown ? go(at, shown - 1) : at && go(at - 1, Infinity);
const speak = () => { body.classList.toggle("speaking"); resize(); };
const speaker = () => window.open(`${location.pathname}?speaker#${at + 1}`, "speaker", "width=1280,height=720");
const keys = { " ": on, ArrowRight: on, PageDown: on, ArrowLeft: back, PageUp: back, n: speak, w: speaker,
  Home: () => go(0), End: () => go(slides.length - 1) };

const resize = () => { main.style = `--zoom: ${Math.min(main.offsetWidth / 1280, main.offsetHeight / 720) - 0.001}`; };

// What is higher than the stage: pictures get smaller, code folds, all is set smaller; on paper until it fits.
function fit(slide) {
  const until = (property, from, to) => {
    for (let size = from; size > to - 0.01 && slide.offsetHeight > 720; size -= 0.04)
      slide.style.setProperty(property, size.toFixed(2));
  };
  for (const wide of slide.querySelectorAll(".formula, table"))
    if (wide.scrollWidth > wide.clientWidth) wide.style.zoom = Math.max(0.6, wide.clientWidth / wide.scrollWidth);
  until("--picture", 1.4, 1.1);
  if (slide.offsetHeight > 720) slide.querySelectorAll("details.code").forEach((code) => { code.open = false; });
  until("--fit", 0.96, 0.84);
  until("--picture", 1.06, 0.62);
  until("--fit", 0.8, 0.76);
  slide.style.setProperty("--screen-fit", slide.style.getPropertyValue("--fit"));
  until("--fit", 0.72, 0.3);
}

addEventListener("keydown", (event) => {
  const key = event.key === " " && event.shiftKey ? "ArrowLeft" : event.key;
  const opens = key === " " && event.target.closest("summary, a");
  if (!keys[key] || opens || event.ctrlKey || event.altKey || event.metaKey) return;
  event.preventDefault();
  keys[key]();
});
addEventListener("touchstart", (event) => { touched = event.changedTouches[0].clientX; });
addEventListener("touchend", (event) => {
  const far = event.changedTouches[0].clientX - touched;
  if (Math.abs(far) > 60) (far < 0 ? on : back)();
});
addEventListener("resize", resize);
addEventListener("hashchange", () => go(location.hash.slice(1) - 1));
find("clock").onclick = () => { began = Date.now(); go(at, shown); };
channel.onmessage = ({ data }) => { began = data.began; go(data.at, data.shown, true); };
setInterval(tick, 5000);
addEventListener("load", () => {
  body.classList.add("live", "measured");
  slides.forEach(fit);
  body.classList.remove("measured");
  if (location.search === "?speaker") speak();
  resize();
  go(location.hash.slice(1) - 1);
});
