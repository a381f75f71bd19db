// All films as points: those that the network takes for alike lie together (t-SNE of its item embeddings). The chosen ones
// are lit, recommended ones pulse. Points are drawn anew only when the view changes; a pulse is drawn over that picture.

const HUES = ["#4e79a7", "#e8843c", "#d9565a", "#62a8a2", "#5a9c50", "#b8921d", "#a3719b", "#e0798c", "#8d6b58", "#8a8886"];
const between = (least, value, most) => Math.min(most, Math.max(least, value));

export class FilmMap {
  // `films`: [{ row, x, y (0 to 1,000), name, genre, size, text }]; `hover(film, x, y)` and `pick(film)` are told of films
  constructor(canvas, films, { hover, pick }) {
    Object.assign(this, { canvas, films, hover, pick, chosen: [], recommended: [], wanted: "" });
    this.view = { x: 500, y: 500, zoom: 1 };
    this.picture = document.createElement("canvas");
    const ofGenre = new Map(films.map(({ genre }) => [genre, []]));
    for (const film of films) ofGenre.get(film.genre).push(film);
    const sorted = [...ofGenre].sort((a, b) => b[1].length - a[1].length);
    const groups = [...sorted.slice(0, 9), ["other", sorted.slice(9).flatMap(([, others]) => others)]];
    this.groups = groups.map(([genre, films], i) => ({ genre, films, color: HUES[i] }));
    this.byRow = new Map(films.map((film) => [film.row, film]));
    this.still = matchMedia("(prefers-reduced-motion: reduce)");
    this.isSeen = true;
    new IntersectionObserver(([entry]) => { this.isSeen = entry.isIntersecting; this.redraw(); }).observe(canvas);
    new ResizeObserver(() => this.redraw()).observe(canvas);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.redraw());
    this.listen();
  }

  show(chosen, recommended) {
    const known = (rows) => rows.flatMap((row) => this.byRow.get(row) ?? []);
    Object.assign(this, { chosen: known(chosen), recommended: known(recommended) });
    this.redraw();
  }

  search(text) {
    this.wanted = text.trim().toLowerCase();
    this.redraw();
  }

  // Zoom by a factor about a point of the canvas; by 0: show all
  zoom(factor, x = this.width / 2, y = this.height / 2) {
    const [mapX, mapY] = this.toMap(x, y);
    this.view.zoom = between(1, this.view.zoom * factor, 40);
    const [newX, newY] = this.toMap(x, y);
    this.move((newX - mapX) * this.scaleX, (newY - mapY) * this.scaleY);
  }

  // Move by pixels, but not away from the films
  move(x, y) {
    const { view } = this, off = 500 * (1 - 1 / view.zoom);
    view.x = between(500 - off, view.x - x / this.scaleX, 500 + off);
    view.y = between(500 - off, view.y - y / this.scaleY, 500 + off);
    this.redraw();
  }

  get width() { return this.canvas.clientWidth; }
  get height() { return this.canvas.clientHeight; }
  get scaleX() { return (this.width - 40) / 1000 * this.view.zoom; }
  get scaleY() { return (this.height - 40) / 1000 * this.view.zoom; }

  toMap(x, y) {
    return [this.view.x + (x - this.width / 2) / this.scaleX, this.view.y + (y - this.height / 2) / this.scaleY];
  }

  // A function from a film to its point on the canvas, for the view as it is
  toCanvas() {
    const { view, scaleX, scaleY, width, height } = this;
    return ({ x, y }) => [(x - view.x) * scaleX + width / 2, (y - view.y) * scaleY + height / 2];
  }

  redraw() {
    this.isStale = true;
    this.frame ??= requestAnimationFrame((time) => this.draw(time));
  }

  draw(time) {
    this.frame = null;
    if (!this.width || !this.isSeen) return;
    if (this.isStale) this.drawPoints();
    this.isStale = false;
    const context = this.canvas.getContext("2d"), at = this.toCanvas(), wave = this.still.matches ? 0.5 : time % 1800 / 1800;
    context.resetTransform();
    context.clearRect(0, 0, this.canvas.width, this.canvas.height);
    context.drawImage(this.picture, 0, 0);
    context.scale(devicePixelRatio, devicePixelRatio);
    context.strokeStyle = this.color("--accent");
    context.globalAlpha = 1 - wave;
    for (const film of this.recommended) {
      context.beginPath();
      context.arc(...at(film), 5 + 13 * wave, 0, 2 * Math.PI);
      context.stroke();
    }
    context.globalAlpha = 1;
    if (this.recommended.length && !this.still.matches) this.frame = requestAnimationFrame((next) => this.draw(next));
  }

  drawPoints() {
    const { width, height, wanted, chosen, recommended } = this;
    for (const canvas of [this.canvas, this.picture]) {
      [canvas.width, canvas.height] = [width * devicePixelRatio, height * devicePixelRatio];
    }
    const context = this.picture.getContext("2d"), at = this.toCanvas(), grow = Math.sqrt(this.view.zoom);
    context.scale(devicePixelRatio, devicePixelRatio);
    const dots = (films, color, alpha, radiusOf) => {
      Object.assign(context, { fillStyle: color, globalAlpha: alpha });
      context.beginPath();
      for (const film of films) {
        const [x, y] = at(film), radius = radiusOf(film);
        if (x < -9 || y < -9 || x > width + 9 || y > height + 9) continue;
        if (radius < 1.4) {
          context.rect(x - radius, y - radius, 1.8 * radius, 1.8 * radius);  // looks the same, and is drawn faster
        } else {
          context.moveTo(x + radius, y);
          context.arc(x, y, radius, 0, 2 * Math.PI);
        }
      }
      context.fill();
    };
    const found = wanted ? this.films.filter((film) => film.text.includes(wanted)) : [], isFound = new Set(found);
    for (const { color, films } of this.groups) {
      dots(films, color, wanted || chosen.length ? 0.4 : 0.75, (film) => film.size * grow);
      if (wanted) dots(films.filter((film) => isFound.has(film)), color, 1, (film) => 2 + film.size * grow);
    }
    dots(recommended, this.color("--accent"), 1, () => 4);
    dots(chosen, this.color("--lit"), 1, () => 5.5);
    const largest = found.toSorted((a, b) => b.size - a.size).slice(0, 12);
    this.drawNames(context, at, [...chosen.slice(-40), ...recommended, ...largest]);
  }

  // Names beside their points, the first first, where there is room
  drawNames(context, at, films) {
    const boxes = [], most = this.width < 420 ? 24 : 34;
    context.font = `600 12px ${getComputedStyle(this.canvas).fontFamily}`;
    Object.assign(context, { lineWidth: 3.5, lineJoin: "round", strokeStyle: this.color("--card"), textBaseline: "middle" });
    for (const film of new Set(films)) {
      const name = film.name.length > most ? `${film.name.slice(0, most - 1)}…` : film.name;
      const [x, y] = at(film), width = context.measureText(name).width;
      const left = x + 9 + width > this.width ? Math.max(2, x - 9 - width) : x + 9, box = [left, y - 8, left + width, y + 8];
      const overlaps = (other) => box[0] < other[2] && other[0] < box[2] && box[1] < other[3] && other[1] < box[3];
      if (x < 0 || y < 0 || x > this.width || y > this.height || boxes.some(overlaps)) continue;
      boxes.push(box);
      context.fillStyle = this.color(this.chosen.includes(film) ? "--lit" : "--ink");
      context.strokeText(name, left, y);
      context.fillText(name, left, y);
    }
  }

  color(name) { return getComputedStyle(this.canvas).getPropertyValue(name); }

  // The film at a point of the canvas, if there is one near it; the lit and recommended ones first
  filmAt(x, y) {
    const at = this.toCanvas(), lit = new Set([...this.chosen, ...this.recommended]);
    let best = null, least = 144;
    for (const film of this.films) {
      const [filmX, filmY] = at(film), distance = (filmX - x) ** 2 + (filmY - y) ** 2 - (lit.has(film) ? 60 : 0);
      if (distance < least) [best, least] = [film, distance];
    }
    return best;
  }

  listen() {
    const fingers = new Map(), on = (name, act) => this.canvas.addEventListener(name, act, { passive: false });
    let travelled = 0;
    on("pointerdown", ({ pointerId, offsetX, offsetY }) => {
      travelled = fingers.size ? 99 : 0;
      fingers.set(pointerId, [offsetX, offsetY]);
      this.canvas.setPointerCapture(pointerId);
    });
    on("pointermove", ({ pointerId, offsetX: x, offsetY: y }) => {
      const before = fingers.get(pointerId), other = [...fingers].find(([id]) => id !== pointerId)?.[1];
      if (!before) { this.hover(this.filmAt(x, y), x, y); return; }
      const apart = (point) => Math.hypot(point[0] - other[0], point[1] - other[1]) || 1;
      if (other) this.zoom(apart([x, y]) / apart(before), ...other);
      else this.move(x - before[0], y - before[1]);
      travelled += Math.hypot(x - before[0], y - before[1]);
      fingers.set(pointerId, [x, y]);
    });
    on("pointerup", ({ pointerId, offsetX, offsetY }) => {
      if (fingers.delete(pointerId) && travelled < 6) this.pick(this.filmAt(offsetX, offsetY));
    });
    on("pointercancel", ({ pointerId }) => fingers.delete(pointerId));
    on("pointerleave", () => this.hover(null));
    on("dblclick", ({ offsetX, offsetY }) => this.zoom(2, offsetX, offsetY));
    on("wheel", (event) => {
      if (!event.ctrlKey && document.activeElement !== this.canvas) return;  // else the page scrolls
      event.preventDefault();
      this.zoom(Math.exp(-event.deltaY / 300), event.offsetX, event.offsetY);
    });
    on("keydown", (event) => {
      const steps = { ArrowLeft: [60, 0], ArrowRight: [-60, 0], ArrowUp: [0, 60], ArrowDown: [0, -60] };
      const factor = { "+": 1.5, "-": 1 / 1.5 }[event.key];
      if (factor) this.zoom(factor);
      else if (steps[event.key]) this.move(...steps[event.key]);
      else return;
      event.preventDefault();
    });
  }
}
