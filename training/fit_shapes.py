"""Fits the analyser's shape classifier to drawn clips (softmax regression): python3 training/fit_shapes.py"""
import json

import numpy as np

import analyse
import clips
from world import SHAPES


def main(count=1000, seed=501):
    rows, labels = [], []
    for i in range(count):
        scene, clip = clips.make(seed, i, held=None)
        features = analyse.shape_features(analyse.segment(clip)[0])
        if features is not None:
            rows.append(features)
            labels.append(SHAPES.index(scene.things[0].shape))
    x, y = np.array(rows), np.eye(len(SHAPES))[labels]
    middle, spread = x[:, :-1].mean(0), x[:, :-1].std(0) + 1e-6
    z = np.concatenate([(x[:, :-1] - middle) / spread, x[:, -1:]], 1)
    w = np.zeros((len(SHAPES), z.shape[1]))
    for _ in range(3000):
        p = np.exp(z @ w.T - (z @ w.T).max(1, keepdims=True))
        p /= p.sum(1, keepdims=True)
        w -= 0.3 * ((p - y).T @ z / len(z) + 1e-4 * w)
    folded = np.concatenate([w[:, :-1] / spread, (w[:, -1] - (w[:, :-1] * middle / spread).sum(1))[:, None]], 1)
    print("training accuracy", float(((x @ folded.T).argmax(1) == np.array(labels)).mean()), "of", len(labels))
    with open(analyse.CLASSIFIER, "w") as file:
        json.dump({"shapes": SHAPES, "seed": seed, "clips": count, "weights": [[round(v, 5) for v in row] for row in folded.tolist()]}, file)


main()
