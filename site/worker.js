// All that takes time happens here, beside the page: the titles, the network, and the files that are dropped.

import { readHistory } from "./exports.js";
import { Network, readWeights } from "./model.js";
import { MAX_REASONS, Recommender } from "./recommender.js";
import { TitleIndex } from "./titles.js";

const get = async (name) => {
  const answer = await fetch(`data/${name}`);
  if (!answer.ok) throw new Error(`data/${name} is missing; make the page with python -m bertrec_utils page`);
  return answer;
};
const films = get("films.json").then((answer) => answer.json());
const index = films.then((films) => new TitleIndex(films));
const recommender = Promise.all([get("settings.json"), get("model.safetensors"), films, index])
  .then(async ([settings, weights, { token, ratings, series }]) => {
    const { model, ...others } = await settings.json();
    const columns = [ratings, series].map((column) => {
      const ofToken = [];
      token.forEach((number, row) => { if (number) ofToken[number - 1] = column[row]; });
      return ofToken;
    });
    return new Recommender(new Network(model, readWeights(await weights.arrayBuffer())), others, ...columns);
  });

let latestReasons = 0;
const otherMessages = () => new Promise((resolve) => { setTimeout(resolve); });

const actions = {
  suggest: async (typed, count) => (await index).suggest(typed, count),
  async find(titles) {
    const titleIndex = await index;
    return titles.map((title) => titleIndex.find(title));
  },
  readHistory,
  recommend: async (tokens, k, options) => (await recommender).recommend(tokens, k, options),
  recommendForTwo: async (histories, k, options) => (await recommender).recommendForTwo(histories, k, options),
  // For each recommended film the place of the film that it is most because of, and what that contributes; null if
  // there are too few or too many films, or newer reasons have been asked for
  async reasons(tokens, recommended, asSet) {
    const mine = ++latestReasons;
    if (tokens.length < 2 || tokens.length > MAX_REASONS) return null;
    const steps = (await recommender).explain(tokens, recommended, asSet);
    for (let step = steps.next(); ; step = steps.next()) {
      if (step.done) {
        return recommended.map((_, column) => step.value.reduce((best, gains, row) =>
          (gains[column] > step.value[best][column] ? row : best), 0));
      }
      await otherMessages();
      if (mine !== latestReasons) return null;
    }
  },
  // What the network looks at in this order, layer by layer, and what each film contributes to the ten it recommends
  async think(tokens) {
    const layers = [];
    (await recommender).network.userVector(tokens, layers);
    const found = (await recommender).recommend(tokens, 10).map(({ token }) => token);
    const steps = (await recommender).explain(tokens, found, false);
    let step = steps.next();
    while (!step.done) step = steps.next();
    return { layers, gains: step.value.map((row) => row.reduce((sum, gain) => sum + gain, 0) / row.length) };
  },
};

self.onmessage = async ({ data: [action, ...given], ports: [port] }) => {
  try {
    port.postMessage({ value: await actions[action](...given) });
  } catch (error) {
    port.postMessage({ error: error.message });
  }
};
