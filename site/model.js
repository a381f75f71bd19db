// The networks of bertrec_utils/model, in plain JavaScript: a history of tokens in, a score of every item out.
// One history goes through at a time, so nothing is padded. Matrices are rows behind rows in typed arrays:
// T items, N states of D numbers (the width), H heads. Sums are in float64, weights in float32.

// What each of the 65,536 numbers in half precision is
const HALVES = Float32Array.from({ length: 2 ** 16 }, (_, half) => {
  const sign = half & 0x8000 ? -1 : 1, exponent = (half >> 10) & 31, fraction = half & 1023;
  return sign * (exponent ? 2 ** (exponent - 15) * (1 + fraction / 1024) : 2 ** -24 * fraction);
});

// The tensors of a .safetensors file in half precision, by name: Float32Array each
export function readWeights(buffer) {
  const start = 8 + Number(new DataView(buffer).getBigUint64(0, true));
  const { __metadata__, ...header } = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 8, start - 8)));
  return Object.fromEntries(Object.entries(header).map(([name, { dtype, data_offsets: [from, to] }]) => {
    if (dtype !== "F16") throw new Error(`${name} is of type ${dtype}; make the page again`);
    return [name, new Float32Array(new Uint16Array(buffer.slice(start + from, start + to))).map((half) => HALVES[half])];
  }));
}

// x (rows, inputs) times the transpose of weight (outputs, inputs), plus bias: (rows, outputs). Four rows and two outputs
// at a time, so that a number fetched is used more than once; at the edges some are computed twice.
export function linear(x, rows, weight, bias) {
  const outputs = bias.length, inputs = weight.length / outputs, result = new Float64Array(rows * outputs);
  for (let o = 0; o < outputs; o += 2) {
    const p = Math.min(o + 1, outputs - 1), wo = o * inputs, wp = p * inputs;
    for (let row = 0; row < rows; row += 4) {
      const [a, b, c, d] = [row, Math.min(row + 1, rows - 1), Math.min(row + 2, rows - 1), Math.min(row + 3, rows - 1)];
      const xa = a * inputs, xb = b * inputs, xc = c * inputs, xd = d * inputs;
      let ao = bias[o], bo = ao, co = ao, d_o = ao, ap = bias[p], bp = ap, cp = ap, dp = ap;
      for (let i = 0; i < inputs; i++) {
        const u = weight[wo + i], v = weight[wp + i];
        const ia = x[xa + i], ib = x[xb + i], ic = x[xc + i], id = x[xd + i];
        ao += u * ia; bo += u * ib; co += u * ic; d_o += u * id;
        ap += v * ia; bp += v * ib; cp += v * ic; dp += v * id;
      }
      const to = [a * outputs, b * outputs, c * outputs, d * outputs];
      result[to[0] + o] = ao; result[to[1] + o] = bo; result[to[2] + o] = co; result[to[3] + o] = d_o;
      result[to[0] + p] = ap; result[to[1] + p] = bp; result[to[2] + p] = cp; result[to[3] + p] = dp;
    }
  }
  return result;
}

function layerNorm(x, { weight, bias }) {
  const width = weight.length, result = new Float64Array(x.length);
  for (let row = 0; row < x.length; row += width) {
    let mean = 0, square = 0;
    for (let i = 0; i < width; i++) mean += x[row + i] / width;
    for (let i = 0; i < width; i++) square += (x[row + i] - mean) ** 2 / width;
    const scale = 1 / Math.sqrt(square + 1e-5);
    for (let i = 0; i < width; i++) result[row + i] = (x[row + i] - mean) * scale * weight[i] + bias[i];
  }
  return result;
}

// The normal distribution from -8 to 8, summed up by Simpson's rule: JavaScript has no erf
const STEP = 1 / 64, EDGE = 8, NORMAL = new Float64Array(2 * EDGE / STEP + 2);
const density = (x) => Math.exp(-x * x / 2) / Math.sqrt(2 * Math.PI);
for (let i = 1; i < NORMAL.length; i++) {
  const x = (i - 1) * STEP - EDGE;
  NORMAL[i] = NORMAL[i - 1] + STEP / 6 * (density(x) + 4 * density(x + STEP / 2) + density(x + STEP));
}

// x times the normal distribution at x, in place; between two entries of the table by Taylor's series
function gelu(x) {
  for (let i = 0; i < x.length; i++) {
    const value = x[i];
    if (value >= EDGE) continue;
    if (value <= -EDGE) { x[i] = 0; continue; }
    const entry = Math.round((value + EDGE) / STEP), at = entry * STEP - EDGE, off = value - at;
    const slope = 1 - off * at / 2 + off * off * (at * at - 1) / 6 - off ** 3 * (at ** 3 - 3 * at) / 24;
    x[i] = value * (NORMAL[entry] + off * density(at) * slope);
  }
  return x;
}

function add(x, y) {
  for (let i = 0; i < x.length; i++) x[i] += y[i];
  return x;
}

// Rotate pairs of neighbouring coordinates of each head by angles that grow with the position, which is the row's
function rotate(x, width, heads, firstPosition) {
  const pairs = width / heads / 2;
  for (let row = 0, position = firstPosition; row < x.length; row += width, position++) {
    for (let pair = 0; pair < pairs; pair++) {
      const angle = Math.fround(position * Math.fround(1000 ** -Math.fround(pair / pairs)));  // in float32, as PyTorch's
      const cos = Math.cos(angle), sin = Math.sin(angle);
      for (let i = row + 2 * pair; i < row + width; i += 2 * pairs) {
        const real = x[i], imaginary = x[i + 1];
        x[i] = real * cos - imaginary * sin;
        x[i + 1] = real * sin + imaginary * cos;
      }
    }
  }
  return x;
}

// What queries (Q, D) gather from T values by their keys (equations 1 and 2); query q sees the first `sees(q)` of them.
// `look`, if given, is told the weights of the last query: (head, weights).
function attend(query, key, value, width, heads, sees, look) {
  const size = width / heads, rows = query.length / width, length = key.length / width;
  const result = new Float64Array(query.length), weights = new Float64Array(length);
  for (let head = 0; head < heads; head++) {
    for (let row = 0; row < rows; row++) {
      const from = row * width + head * size, seen = sees(row);
      let most = -Infinity, total = 0;
      for (let t = 0; t < seen; t++) {
        let sum = 0;
        for (let i = 0, k = t * width + head * size; i < size; i++) sum += query[from + i] * key[k + i];
        weights[t] = sum / Math.sqrt(size);
        if (weights[t] > most) most = weights[t];
      }
      for (let t = 0; t < seen; t++) total += weights[t] = Math.exp(weights[t] - most);
      for (let t = 0; t < seen; t++) {
        const weight = weights[t] /= total;
        for (let i = 0, v = t * width + head * size; i < size; i++) result[from + i] += weight * value[v + i];
      }
      if (look && row === rows - 1) look(head, Array.from(weights));
    }
  }
  return result;
}

// For each position from 0 to T the weighted sum of the `conv_size` normed states before it: (T + 1, D)
function convolve(normed, length, width, weight) {
  const result = new Float64Array((length + 1) * width);
  for (let position = 0; position <= length; position++) {
    for (let back = 1; back <= Math.min(weight.length / width, position); back++) {
      const to = position * width, from = (position - back) * width, w = (back - 1) * width;
      for (let i = 0; i < width; i++) result[to + i] += weight[w + i] * normed[from + i];
    }
  }
  return result;
}

const length = (x) => Math.sqrt(x.reduce((sum, value) => sum + value * value, 0));

export class Network {
  constructor(settings, weights) {
    Object.assign(this, settings);  // the names of ModelSettings, and items, their number
    this.weights = weights;
    this.output = weights["item_embedding.weight"].subarray(this.width, -this.width);  // neither PAD's nor [MASK]'s
    this.longest = this.max_length - (this.network === "bert4rec");  // whose [MASK] takes a position
  }

  layer(name) {
    return { weight: this.weights[`${name}.weight`], bias: this.weights[`${name}.bias`] };
  }

  linear(x, name, from = 0, to = undefined) {  // from, to: of the outputs
    const { weight, bias } = this.layer(name), inputs = weight.length / bias.length;
    return linear(x, x.length / inputs, weight.subarray(from * inputs, to && to * inputs), bias.subarray(from, to));
  }

  // Embeddings (T + 1, D) of the newest items of a history and of the [MASK] behind them
  embed(tokens) {
    const { width } = this, table = this.weights["item_embedding.weight"];
    const states = new Float64Array((tokens.length + 1) * width);
    [...tokens, this.items + 1].forEach((token, row) =>
      states.set(table.subarray(token * width, (token + 1) * width), row * width));
    return states;
  }

  // What is compared with the items' embeddings after a history, (D). A `trace`, if given, is filled with what the
  // [MASK] looks at: for each layer { heads: [weights of each item], conv: the convolution's share, or null }.
  userVector(history, trace) {
    if (!history.length) throw new Error("a history is empty; give at least one film");
    const tokens = Array.from(history).slice(-this.longest);
    return this.network === "bert4rec" ? this.authors(tokens, trace) : this.modern(tokens, trace);
  }

  // bertrec_utils/model/modern.py
  modern(tokens, trace) {
    const { width, heads, layers } = this, T = tokens.length;
    let states = this.embed(tokens);
    for (let number = 0; number < layers; number++) {
      const block = `blocks.${number}`, first = number < layers - 1 ? 0 : T;  // the last block makes the [MASK]'s only
      const normed = layerNorm(states, this.layer(`${block}.attention_norm`));
      const previous = convolve(normed, T, width, this.weights[`${block}.conv.weight`]);
      add(normed, previous);
      const query = this.linear(normed.subarray(first * width), `${block}.attention.query`);
      const items = normed.subarray(0, T * width);
      const key = this.linear(items, `${block}.attention.key_value`, 0, width);
      const value = this.linear(items, `${block}.attention.key_value`, width, 2 * width);
      rotate(query, width, heads, first);
      rotate(key, width, heads, 0);
      const sees = (row) => this.causal ? Math.min(first + row + 1, T) : T;
      const looks = [];
      const gathered = attend(query, key, value, width, heads, sees, trace && ((head, weights) => looks.push(weights)));
      const attended = this.linear(gathered, `${block}.attention.project`);
      if (trace) {
        const conv = length(previous.subarray(-width)), attention = length(attended.subarray(-width));
        trace.push({ heads: looks, conv: this.conv_size ? conv / (conv + attention) : null });
      }
      states = add(add(states.slice(first * width), previous.subarray(first * width)), attended);
      const wide = this.linear(layerNorm(states, this.layer(`${block}.feed_forward_norm`)), `${block}.expand`);
      add(states, this.linear(gelu(wide), `${block}.contract`));
    }
    return layerNorm(states, this.layer("final_norm"));
  }

  // bertrec_utils/model/bert4rec.py, as its authors built it
  authors(tokens, trace) {
    const { width, heads, layers } = this, N = tokens.length + 1;
    const positions = this.weights["position_embedding.weight"].subarray((this.max_length - N) * width);
    let states = layerNorm(add(this.embed(tokens), positions), this.layer("embedding_norm"));
    for (let number = 0; number < layers; number++) {
      const block = `blocks.${number}`, queries = number < layers - 1 ? states : states.subarray(-width);
      const [query, key, value] = [[queries, "query"], [states, "key"], [states, "value"]]
        .map(([x, name]) => this.linear(x, `${block}.${name}`));
      const looks = [];
      const gathered = attend(query, key, value, width, heads, () => N, trace && ((head, weights) => looks.push(weights)));
      const attended = this.linear(gathered, `${block}.project`);
      if (trace) trace.push({ heads: looks.map((weights) => weights.slice(0, -1)), conv: null });  // not the [MASK] itself
      states = layerNorm(add(attended, queries), this.layer(`${block}.attention_norm`));
      const processed = this.linear(gelu(this.linear(states, `${block}.expand`)), `${block}.contract`);
      states = layerNorm(add(processed, states), this.layer(`${block}.feed_forward_norm`));
    }
    return layerNorm(gelu(this.linear(states, "project")), this.layer("project_norm"));
  }

  // log p(next item), an array of V numbers for each history: column j is that of token j + 1
  logProbabilities(histories) {
    const { width, items } = this, vectors = new Float64Array(histories.length * width);
    histories.forEach((history, row) => vectors.set(this.userVector(history), row * width));
    const scores = linear(vectors, histories.length, this.output, this.weights.item_bias);
    return histories.map((_, row) => {
      const of = scores.subarray(row * items, (row + 1) * items);
      let most = -Infinity, total = 0;
      for (const score of of) if (score > most) most = score;
      for (const score of of) total += Math.exp(score - most);
      const norm = most + Math.log(total);
      for (let i = 0; i < items; i++) of[i] -= norm;
      return of;
    });
  }
}
