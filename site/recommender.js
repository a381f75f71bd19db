// bertrec_utils/scenarios/recommender.py for the browser: histories of tokens in, films, scores and reasons out.

export const MAX_REASONS = 30;  // films of a history; with more, the reasons would take too long

// `count` numbers from 0 to 1 in float32, as NumPy's generator PCG64 draws them from this state
export function* randomNumbers({ state, inc }, count) {
  const multiplier = 0x2360ed051fc65da44385df649fccf645n, low64 = (1n << 64n) - 1n, low128 = (1n << 128n) - 1n;
  let current = BigInt(state);
  for (let drawn = 0; drawn < count; drawn += 2) {
    current = (current * multiplier + BigInt(inc)) & low128;
    const mixed = ((current >> 64n) ^ current) & low64, turn = current >> 122n;
    const bits = ((mixed >> turn) | (mixed << (64n - turn))) & low64;
    yield Number(bits & 0xffffffffn) >>> 8;
    yield Number(bits >> 32n) >>> 8;
  }
}

function permutations(tokens) {
  if (tokens.length < 2) return [tokens];
  return tokens.flatMap((first, i) => permutations(tokens.toSpliced(i, 1)).map((rest) => [first, ...rest]));
}

// The columns of the k highest scores that are finite, best first, the first of equals first
export function bestColumns(scores, k) {
  const best = [];
  for (let column = 0; column < scores.length; column++) {
    const score = scores[column];
    if (score === -Infinity || (best.length === k && score <= scores[best[k - 1]])) continue;
    let place = best.length;
    while (place && scores[best[place - 1]] < score) place--;
    best.splice(place, 0, column);
    if (best.length > k) best.pop();
  }
  return best;
}

export class Recommender {
  // ratings: how many people have rated the film of each column; series: the number of its series, or 0
  constructor(network, settings, ratings, series) {
    Object.assign(this, { network, ratings, series, orders: settings.orders, allowSeen: settings.allow_seen });
    const keys = settings.orders * (network.items + 1);
    this.sortKeys = Uint32Array.from(randomNumbers(settings.random, keys));
  }

  // The history as it is; or as a set: all orders of up to three films, 16 random ones of more. A film has the same
  // sort keys in every history, so that one with and one without a film have the same orders.
  ordersOf(tokens, asSet) {
    if (!asSet) return [tokens];
    const sorted = [...new Set(tokens)].sort((a, b) => a - b);
    if (sorted.length <= 3) return permutations(sorted);
    return Array.from({ length: this.orders }, (_, order) => {
      const key = (token) => this.sortKeys[order * (this.network.items + 1) + token];
      return sorted.toSorted((a, b) => key(a) - key(b));
    });
  }

  // log p(next film) of every film after a history; as a set the mean over its orders
  logProbabilities(tokens, asSet) {
    const [mean, ...others] = this.network.logProbabilities(this.ordersOf(tokens, asSet));
    for (const other of others) for (let i = 0; i < mean.length; i++) mean[i] += other[i];
    if (others.length) for (let i = 0; i < mean.length; i++) mean[i] /= others.length + 1;
    return mean;
  }

  // The same less the popularity penalty, and -Infinity for what is not to be recommended
  scores(tokens, { asSet = false, penalty = 0, excludeSeries = false, only = null, seen = tokens } = {}) {
    const scores = this.logProbabilities(tokens, asSet);
    const watched = new Set(this.allowSeen ? [] : seen), itsSeries = new Set(seen.map((token) => this.series[token - 1]));
    itsSeries.delete(0);
    const listed = only && new Set(only);
    return scores.map((score, column) => {
      const isOut = watched.has(column + 1) || (listed && !listed.has(column + 1))
        || (excludeSeries && itsSeries.has(this.series[column]));
      return isOut ? -Infinity : score - penalty * Math.log(this.ratings[column] + 1);
    });
  }

  // The k best films after a history: [{ token, score }]
  recommend(tokens, k, options) {
    const scores = this.scores(tokens, options);
    return bestColumns(scores, k).map((column) => ({ token: column + 1, score: scores[column] }));
  }

  // Films for two people: those with the highest sum of scores, or those whose worse rank in the two lists is best
  // (among equals, the sum). What either has seen is left out: [{ token, score, ranks }]
  recommendForTwo(histories, k, { byRank = false, ...options } = {}) {
    const each = histories.map((tokens) => this.scores(tokens, { ...options, seen: histories.flat() }));
    const ranks = each.map((scores) => {
      const order = Array.from(scores.keys()).sort((a, b) => scores[b] - scores[a]);
      const ranks = new Int32Array(scores.length);
      order.forEach((column, place) => { ranks[column] = place + 1; });
      return ranks;
    });
    const sums = each[0].map((score, column) => score + each[1][column]);
    const worse = (column) => Math.max(ranks[0][column], ranks[1][column]);
    const finite = Array.from(sums.keys()).filter((column) => sums[column] > -Infinity);
    finite.sort((a, b) => (byRank && worse(a) - worse(b)) || sums[b] - sums[a]);
    return finite.slice(0, k).map((column) => (
      { token: column + 1, score: sums[column], ranks: ranks.map((list) => list[column]) }));
  }

  // What each film of a history contributes to each recommended one: log p(recommended | history) less the same without
  // the film. It yields after each film, so that a worker can look at its messages; what it returns is (film, recommended).
  *explain(history, recommended, asSet) {
    const tokens = [...new Set(history)];
    const pick = (scores) => recommended.map((token) => scores[token - 1]);
    const whole = pick(this.logProbabilities(tokens, asSet)), gains = [];
    for (let row = 0; row < tokens.length; row++) {
      yield;
      const without = pick(this.logProbabilities(tokens.toSpliced(row, 1), asSet));
      gains.push(whole.map((value, column) => value - without[column]));
    }
    return gains;
  }
}
