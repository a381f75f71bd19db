"""The mistakes of the notebook this project started from: in a network, a training, a split, and a measurement."""

from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bertrec_utils.data.dataset import Dataset, build_sequences
from bertrec_utils.data.sequences import PAD, Holdout, Sequences
from bertrec_utils.data.splits import leave_one_out
from bertrec_utils.evaluation.baselines import Popularity
from bertrec_utils.evaluation.ranking import Scorer, evaluate, metrics, target_ranks
from bertrec_utils.model.bert4rec import BERT4Rec
from bertrec_utils.model.layers import evaluating
from bertrec_utils.model.masking import MaskedBatch, pad_left
from bertrec_utils.model.modern import Layout, ModernTransformer
from bertrec_utils.settings import ModelSettings
from bertrec_utils.training.trainer import Trainer


class TheNotebooks(BERT4Rec):
    """The network of that notebook: weights as PyTorch makes them, embeddings N(0, 1); no layer norm after them, no
    projection before the output; padding is attended to; and in the test [MASK] stands over the newest item."""

    def __init__(self, item_count: int, settings: ModelSettings):
        super().__init__(item_count, settings)
        self.embedding_norm = nn.Identity()
        for module in self.modules():
            if reset := getattr(module, "reset_parameters", None):
                reset()

    def encode(self, tokens: Tensor) -> Tensor:
        states = self.embed(tokens)
        for block in self.blocks:
            states = block(states, states, torch.ones_like(tokens, dtype=torch.bool)[:, None])
        return states

    def target_states(self, tokens: Tensor, positions: Tensor) -> Tensor:
        return self.encode(tokens).gather(1, positions[:, :, None].expand(-1, -1, self.settings.width))

    def transform(self, states: Tensor) -> Tensor:
        return states

    @torch.inference_mode()
    def score(self, histories: Sequences) -> np.ndarray:
        starts = np.maximum(histories.lengths - self.settings.max_length, 0)
        tokens = pad_left(histories, np.arange(len(histories)), starts, histories.lengths)
        tokens[:, -1] = self.mask_token
        with evaluating(self):
            return self.logits(self.encode(torch.from_numpy(tokens).to(self.device))[:, -1]).cpu().numpy()


class SeesPadding(ModernTransformer):
    """Every history is padded to `max_length`, and attention and convolution take the padding for items."""

    def embed(self, batch: MaskedBatch) -> tuple[Tensor, Layout]:
        shift = self.settings.max_length - batch.history.shape[1]
        padded = MaskedBatch(
            F.pad(batch.history, (shift, 0), value=PAD),
            F.pad(batch.history_visible_until + shift, (shift, 0), value=self.settings.max_length),
            batch.target_positions + shift,
            batch.visible_until + shift,
            batch.labels,
        )
        states, layout = super().embed(padded)
        is_padding = padded.history == PAD
        visible = layout.visible | is_padding[:, None, None, :]
        return states, layout._replace(visible=visible, is_item=layout.is_item | is_padding[:, :, None])


class LargeStart(ModernTransformer):
    """Item embeddings start at N(0, 1), as PyTorch makes them."""

    def __init__(self, item_count: int, settings: ModelSettings):
        super().__init__(item_count, settings)
        self.item_embedding.reset_parameters()


class OverTheNewest:
    """A model that is asked with [MASK] over the newest item of each history, which it so never sees."""

    def __init__(self, model: Scorer):
        self.model = model

    def score(self, histories: Sequences) -> np.ndarray:
        is_kept = np.ones(len(histories.tokens), dtype=bool)
        is_kept[histories.offsets[1:] - 1] = False
        offsets = histories.offsets - np.arange(len(histories.offsets))
        return self.model.score(Sequences(histories.tokens[is_kept], offsets, histories.users))


def constant_rate(trainer: Trainer) -> None:
    """Adam at one learning rate."""
    rate = trainer.settings.training.learning_rate
    trainer.optimizer = torch.optim.Adam(trainer.model.parameters(), lr=rate)
    trainer.schedule = torch.optim.lr_scheduler.LambdaLR(trainer.optimizer, lambda step: 1)


def split_of_the_notebook(dataset: Dataset) -> Dataset:
    """Equal timestamps in the order in which items first appear in the file, and training on all but the test item."""
    ratings = dataset.log.ratings
    first_seen = ratings.groupby("item", sort=False).ngroup()
    ratings = ratings.assign(first_seen=first_seen).sort_values(["user", "timestamp", "first_seen"])
    vocabulary, sequences, _ = build_sequences(ratings, min_item_ratings=1, tie_seed=None)
    split = leave_one_out(sequences)
    return Dataset(vocabulary, sequences, dataset.log, replace(split, train=split.test.histories))


def ties_by_id(dataset: Dataset) -> Dataset:
    """Of ratings in the same second the item with the lower id is the earlier, so that the test asks for high ids."""
    ratings = dataset.log.ratings
    kept = ratings[ratings.user.isin(dataset.sequences.users)].sort_values(["user", "timestamp", "item"])
    vocabulary, sequences, _ = build_sequences(kept, tie_seed=None)
    return Dataset(vocabulary, sequences, dataset.log, leave_one_out(sequences))


def chosen_on_the_test(dataset: Dataset) -> Dataset:
    """The epoch is chosen on the test users' targets."""
    return Dataset(
        dataset.vocabulary, dataset.sequences, dataset.log, replace(dataset.split, validation=dataset.split.test)
    )


def metrics_of_the_notebook(model: Scorer, holdout: Holdout, seed: int = 0) -> dict[str, float]:
    """Hit@10 and NDCG@10 against 100 uniform draws from all items, the target and those of the history included."""
    random, ranks = np.random.default_rng(seed), []
    for rows in np.array_split(np.arange(len(holdout)), len(holdout) // 256 + 1):
        scores = model.score(holdout.histories.rows(rows))
        targets = np.take_along_axis(scores, holdout.targets[rows, None] - 1, 1)
        drawn = random.integers(0, scores.shape[1], (len(rows), 100))
        ranks.append(1 + (np.take_along_axis(scores, drawn, 1) > targets).sum(1))
    ranks = np.concatenate(ranks)
    hit = ranks <= 10
    return {"hit@10": hit.mean(), "ndcg@10": (hit / np.log2(ranks + 1)).mean()}


def measured_with_mistakes(model: Scorer, dataset: Dataset) -> dict:
    """The test as it should be, and with each mistake of measurement."""
    test = dataset.split.test
    popularity = Popularity(dataset.split.train, len(dataset.vocabulary))
    return {
        "test": evaluate(model, test, progress=False),
        "[MASK] over the newest item": evaluate(OverTheNewest(model), test, progress=False),
        "seen items among the candidates": {
            name: metrics(ranks) for name, ranks in target_ranks(model, test, rank_history=True, progress=False).items()
        },
        "negatives of the notebook": {"uniform-100": metrics_of_the_notebook(model, test)},
        "of popularity, ties half": {"full": metrics(target_ranks(popularity, test, ["full"], progress=False)["full"])},
        "of popularity, ties won": {"full": metrics(ranks_with_ties_won(popularity, test))},
    }


def ranks_with_ties_won(scorer: Scorer, holdout: Holdout) -> np.ndarray:
    """Full ranking in which the target comes before all that have its score."""
    ranks = []
    for rows in np.array_split(np.arange(len(holdout)), len(holdout) // 256 + 1):
        histories = holdout.histories.rows(rows)
        scores = scorer.score(histories).copy()
        targets = np.take_along_axis(scores, holdout.targets[rows, None] - 1, 1)
        scores[histories.token_rows, histories.tokens - 1] = -np.inf
        ranks.append(1 + (scores > targets).sum(1))
    return np.concatenate(ranks)
