// What the page calls things: choices in words that need no knowledge of the method.

export const CHOICES = {
  color: {
    style: "those of the painting",
    luma: "those of the photograph",
    match: "those of the photograph, in strokes of the painting",
    luminance: "those of the photograph; only light and dark are painted",
  },
  statistics: {
    "": "as the recipe says",
    wasserstein: "strokes, patterns and palette together",
    gram: "patterns, as in the first paper on this",
    "gram+moments": "patterns, and how bright and varied they are",
  },
  preset: { default: "the usual one", gram: "the usual one with the paper’s patterns", random: "for random filters" },
  init: { content: "the photograph", noise: "noise", "noisy-content": "the photograph with noise" },
  mixture: { targets: "as one manner", losses: "each for itself" },
  optimizer: { lbfgs: "L-BFGS", lbfgs32: "L-BFGS in half the memory", adam: "Adam" },
  padding: { zero: "a frame of the mean color", replicate: "its last pixels again", wrap: "the opposite side, for tiles" },
  pooling: { average: "averages", max: "maxima" },
  weights: { auto: "trained ones", random: "random ones, rough but always there" },
};

// The fields for experts: name, label, kind, and for numbers step and maximum.
export const EXPERT = [
  ["iterations", "Iterations at each size", "number", 1, 10000],
  ["min_size", "Longer side of the first size, 0 for one size", "number", 1, 16384],
  ["content_weight", "Weight of the photograph", "number", "any", 1e9],
  ["keep_edges", "Weight of the photograph’s edges", "number", "any", 1e9],
  ["tv_weight", "Weight of smoothness (total variation)", "number", "any", 1e9],
  ["style_scale", "Size of the strokes, 1 is the painting’s at this size", "number", "any", 20],
  ["init", "Start from", "choice"],
  ["mixture", "Several paintings are taken", "choice"],
  ["optimizer", "Optimizer", "choice"],
  ["pooling", "The network’s pooling takes", "choice"],
  ["padding", "Beyond the border the network sees", "choice"],
  ["weights", "The network’s filters", "choice"],
  ["enlarge", "Let the picture be larger than the photograph", "check"],
];

// The other fields.
export const NAMES = { color: "Colors", preset: "Recipe", statistics: "The painting’s manner", seed: "Seed" };

export const STATUS = {
  queued: "waiting",
  painting: "being painted",
  paused: "paused",
  done: "done",
  failed: "failed",
};

export const PHASE = { filters: "Reading the pictures and the filters …", start: "Looking at the painting …" };

// A strength, given as a power of ten.
export function times(power) {
  const factor = 10 ** Math.abs(power), text = factor >= 10 ? factor.toFixed(0) : factor.toPrecision(2);
  return power === 0 ? "as usual" : power > 0 ? `${text} times as much` : `${text} times less`;
}

// What a painting is called where several are listed.
export function nameOf({ content, styles, options }) {
  const strength = options.strength === undefined ? "" : `, ${times(Math.log10(options.strength))}`;
  return `${content} – ${styles.join(", ")}${strength}`;
}

export function bytes(number) {
  return number >= 1e9 ? `${(number / 1e9).toFixed(1)} GB` : `${Math.round(number / 1e6)} MB`;
}

export function duration(seconds) {
  if (seconds < 90) return `${Math.max(1, Math.round(seconds))}\u00a0s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)}\u00a0min`;
  return `${(seconds / 3600).toFixed(1)}\u00a0h`;
}
