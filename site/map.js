// All films as points: those that the network takes for alike lie together (t-SNE of its item embeddings). The chosen ones
// are lit, recommended ones pulse. Points are drawn anew only when the view changes; a pulse is drawn over that picture.

const HUES = ["#4e79a7", "#e8843c", "#d9565a", "#62a8a2", "#5a9c50", "#b8921d", "#a3719b", "#e0798c", "#8d6b58", "#8a8886"];
const FULL = 2 * Math.PI;

export class FilmMap {
  // `films`: [{ row, x, y (0 to 1,000), name, genre, size, text }]; `hover(film, x, y)` and `pick(film)` are told of films
  constructor(canvas, films, { hover, pick }) {
    Object.assign(this, { canvas, films, hover, pick, chosen: new Set(), recommended: [], wanted: "" });
    this.view = { x: 500, y: 500, zoom: 1 };
    this.picture = document.createElement("canvas");
    const counts = Map.groupBy(films, (film) => film.genre);
    this.genres = [...counts].sort((a, b) => b[1].length - a[1].length).slice(0, 9).map(([genre]) => genre);
    this.groups = [...this.genres, "other"].map((genre, i) => (
      { genre, color: HUES[i], films: films.filter((film) => (this.genres.includes(film.genre) ? film.genre : "other") === genre) }));
    this.byRow = new Map(films.map((film) => [film.row, film]));
    this.still = matchMedia("(prefers-reduced-motion: reduce)");
    this.isSeen = true;
    new IntersectionObserver(([entry]) => { this.isSeen = entry.isIntersecting; this.redraw(); }).observe(canvas);
    new ResizeObserver(() => this.resize()).observe(canvas);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.redraw());
    this.listen();
  }

  show(chosen, recommended) {
    this.chosen = new Set(chosen);
    this.recommended = recommended.filter((row) => this.byRow.has(row));
    this.redraw();
  }

  search(text) {
    this.wanted = text.trim().toLowerCase();
    this.redraw();
  }

  resize() {
    const { clientWidth: width, clientHeight: height } = this.canvas, ratio = devicePixelRatio || 1;
    for (const canvas of [this.canvas, this.picture]) Object.assign(canvas, { width: width * ratio, height: height * ratio });
    Object.assign(this, { width, height, ratio });
    this.redraw();
  }

  // Zoom by a factor about a point of the canvas, or move by pixels
  zoom(factor, x = this.width / 2, y = this.height / 2) {
    const [mapX, mapY] = this.toMap(x, y);
    this.view.zoom = Math.min(40, Math.max(1, this.view.zoom * factor));
    const [newX, newY] = this.toMap(x, y);
    this.view.x += mapX - newX;
    this.view.y += mapY - newY;
    this.move(0, 0);
  }

  move(x, y) {
    const { view } = this, keep = (value) => Math.min(1000, Math.max(0, value));
    view.x = keep(view.x - x / this.scaleX);
    view.y = keep(view.y - y / this.scaleY);
    this.redraw();
  }

  get scaleX() { return (this.width - 40) / 1000 * this.view.zoom; }
  get scaleY() { return (this.height - 40) / 1000 * this.view.zoom; }
  toMap(x, y) { return [this.view.x + (x - this.width / 2) / this.scaleX, this.view.y + (y - this.height / 2) / this.scaleY]; }
  toCanvas({ x, y }) { return [(x - this.view.x) * this.scaleX + this.width / 2, (y - this.view.y) * this.scaleY + this.height / 2]; }

  redraw() {
    this.isStale = true;
    this.frame ??= requestAnimationFrame((time) => this.draw(time));
  }

  draw(time) {
    this.frame = null;
    if (!this.width || !this.isSeen) return;
    if (this.isStale) this.drawPoints();
    this.isStale = false;
    const context = this.canvas.getContext("2d");
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, this.canvas.width, this.canvas.height);
    context.drawImage(this.picture, 0, 0);
    context.setTransform(this.ratio, 0, 0, this.ratio, 0, 0);
    const wave = this.still.matches ? 0.5 : (time % 1800) / 1800;
    context.strokeStyle = this.color("--accent");
    for (const row of this.recommended) {
      const [x, y] = this.toCanvas(this.byRow.get(row));
      context.globalAlpha = 1 - wave;
      context.beginPath();
      context.arc(x, y, 5 + 13 * wave, 0, FULL);
      context.stroke();
    }
    context.globalAlpha = 1;
    if (this.recommended.length && !this.still.matches) this.frame = requestAnimationFrame((next) => this.draw(next));
  }

  drawPoints() {
    const context = this.picture.getContext("2d"), isQuiet = this.wanted || this.chosen.size;
    context.setTransform(this.ratio, 0, 0, this.ratio, 0, 0);
    context.clearRect(0, 0, this.width, this.height);
    const grow = Math.sqrt(this.view.zoom), dot = (film, radius) => {
      const [x, y] = this.toCanvas(film);
      if (x < -9 || y < -9 || x > this.width + 9 || y > this.height + 9) return;
      context.moveTo(x + radius, y);
      context.arc(x, y, radius, 0, FULL);
    };
    for (const { color, films } of this.groups) {
      context.fillStyle = color;
      context.globalAlpha = isQuiet ? 0.3 : 0.75;
      context.beginPath();
      for (const film of films) dot(film, film.size * grow);
      context.fill();
      if (!this.wanted) continue;
      context.globalAlpha = 1;
      context.beginPath();
      for (const film of films) if (film.text.includes(this.wanted)) dot(film, 2 + film.size * grow);
      context.fill();
    }
    context.globalAlpha = 1;
    const lit = [...this.chosen].map((row) => this.byRow.get(row)).filter(Boolean).slice(-60);
    const recommended = this.recommended.map((row) => this.byRow.get(row));
    for (const [films, color, radius] of [[recommended, "--accent", 4], [lit, "--lit", 5.5]]) {
      context.fillStyle = this.color(color);
      context.beginPath();
      for (const film of films) dot(film, radius);
      context.fill();
    }
    const found = this.wanted ? this.films.filter((film) => film.text.includes(this.wanted)) : [];
    this.drawNames([...lit, ...recommended, ...found.toSorted((a, b) => b.size - a.size).slice(0, 12)]);
  }

  // Names beside their points, the first first, where there is room
  drawNames(films) {
    const context = this.picture.getContext("2d"), boxes = [], most = this.width < 420 ? 24 : 34;
    context.font = `600 12px ${getComputedStyle(this.canvas).fontFamily}`;
    Object.assign(context, { lineWidth: 3.5, lineJoin: "round", strokeStyle: this.color("--card"), textBaseline: "middle" });
    for (const film of new Set(films)) {
      const name = film.name.length > most ? `${film.name.slice(0, most - 1)}…` : film.name;
      const [x, y] = this.toCanvas(film), width = context.measureText(name).width;
      const left = x + 9 + width > this.width ? Math.max(2, x - 9 - width) : x + 9;
      const box = [left, y - 8, left + width, y + 8];
      if (x < 0 || y < 0 || x > this.width || y > this.height
        || boxes.some((other) => box[0] < other[2] && other[0] < box[2] && box[1] < other[3] && other[1] < box[3])) continue;
      boxes.push(box);
      context.strokeText(name, left, y);
      context.fillStyle = this.color(this.chosen.has(film.row) ? "--lit" : "--ink");
      context.fillText(name, left, y);
    }
  }

  color(name) { return getComputedStyle(this.canvas).getPropertyValue(name); }

  // The film at a point of the canvas, if there is one near it; the lit and recommended ones first
  at(x, y) {
    let best = null, least = 144;
    for (const film of this.films) {
      const [filmX, filmY] = this.toCanvas(film), isLit = this.chosen.has(film.row) || this.recommended.includes(film.row);
      const distance = (filmX - x) ** 2 + (filmY - y) ** 2 - (isLit ? 60 : 0);
      if (distance < least) [best, least] = [film, distance];
    }
    return best;
  }

  listen() {
    const { canvas } = this, fingers = new Map();
    let travelled = 0;
    const on = (name, act, options) => canvas.addEventListener(name, act, options);
    on("pointerdown", (event) => {
      travelled = fingers.size ? 99 : 0;
      fingers.set(event.pointerId, [event.offsetX, event.offsetY]);
      canvas.setPointerCapture(event.pointerId);
    });
    on("pointermove", (event) => {
      const { pointerId, offsetX: x, offsetY: y } = event, before = fingers.get(pointerId);
      if (!before) { this.hover(this.at(x, y), x, y); return; }
      const other = [...fingers].find(([id]) => id !== pointerId)?.[1];
      const apart = (point) => Math.hypot(point[0] - other[0], point[1] - other[1]) || 1;
      if (other) this.zoom(apart([x, y]) / apart(before), ...other);
      else this.move(x - before[0], y - before[1]);
      travelled += Math.hypot(x - before[0], y - before[1]);
      fingers.set(pointerId, [x, y]);
    });
    on("pointerup", (event) => {
      if (fingers.has(event.pointerId) && travelled < 6) this.pick(this.at(event.offsetX, event.offsetY));
    });
    for (const end of ["pointerup", "pointercancel"]) on(end, (event) => fingers.delete(event.pointerId));
    on("pointerleave", () => this.hover(null));
    on("wheel", (event) => {
      if (!event.ctrlKey && document.activeElement !== canvas) return;  // else the page scrolls
      event.preventDefault();
      this.zoom(Math.exp(-event.deltaY / 300), event.offsetX, event.offsetY);
    }, { passive: false });
    on("dblclick", (event) => this.zoom(2, event.offsetX, event.offsetY));
    on("keydown", (event) => {
      const steps = { ArrowLeft: [60, 0], ArrowRight: [-60, 0], ArrowUp: [0, 60], ArrowDown: [0, -60] };
      if (steps[event.key]) this.move(...steps[event.key]);
      else if (event.key === "+" || event.key === "-") this.zoom(event.key === "+" ? 1.5 : 1 / 1.5);
      else return;
      event.preventDefault();
    });
  }
}
