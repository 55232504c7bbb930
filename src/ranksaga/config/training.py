"""How a model is trained: by labelled pairs, or by distillation of a teacher that needs no labels.

Both are variants of one type, told apart by ``method``, and each has its own settings only.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

__all__ = [
    "VARIANTS",
    "AnyTraining",
    "Distillation",
    "Distilled",
    "Documents",
    "Labelled",
    "Lora",
    "Settings",
    "Tower",
    "Training",
]

Tower = Literal["shared", "query", "document"]


class Settings(BaseModel):
    """Frozen, strict about keys, and every number finite: YAML has .inf and .nan."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Lora(Settings):
    """Low-rank updates of the linear layers in place of all weights (Hu et al. 2021)."""

    rank: int = Field(16, ge=1, description="columns of the two narrow matrices")
    alpha: float = Field(32.0, gt=0, description="the update counts alpha / rank times")


class Training(Settings):
    """What both ways to train have in common."""

    epochs: int = Field(4, ge=1, description="passes over the training data")
    learning_rate: float = Field(3e-5, gt=0, lt=1, description="peak learning rate of AdamW")
    seeds: int = Field(1, ge=1, description="trainings with seeds of their own, whose weights are averaged")
    warmup_steps: int | None = Field(None, ge=0, description="linear warm-up in steps; none: a tenth of the run")
    weight_decay: float = Field(0.01, ge=0, description="AdamW weight decay")
    max_steps: int | None = Field(None, ge=1, description="cap on optimizer steps, stated in the report")
    max_length: int | None = Field(None, ge=8, description="tokens per training text; none: the encoder's own limit")
    dataset_temperature: float = Field(
        1.0,
        ge=0,
        le=1,
        description="datasets drawn in proportion to size ** temperature; 1: as large as they are, 0: equally",
    )
    dropout: bool = Field(False, description="the model's own rates, on attention's slow path")
    lora: Lora | None = Field(
        None, description="learn low-rank updates of the linear layers, and nothing else; none: all weights"
    )
    freeze_embeddings: bool = Field(
        False, description="leave the token embeddings as they are: rare words keep their place"
    )
    merge_weights: tuple[float, ...] = Field(
        (0.5, 0.75, 1.0),
        description="weights of the fine-tuned model against the base, chosen on dev with the epoch; [1.0] for a model "
        "in one tower: the last epoch as it is, without a choice",
    )
    tolerance: float = Field(
        0.0, ge=0, description="largest relative loss on any dataset's or guard's dev that selection accepts"
    )
    standard_errors: float = Field(
        1.0,
        ge=0,
        description="a larger loss is refused where it exceeds the tolerance by more than so many of its standard "
        "errors; 0: at once, however few the dev queries",
    )

    @field_validator("merge_weights")
    @classmethod
    def _weights(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if not value or any(not 0 < weight <= 1 for weight in value):
            raise ValueError(
                "weights lie above 0 and up to 1, at least one of them; the base model (0) is always a choice"
            )
        return value

    @property
    def trains(self) -> Tower:
        """What learns: one model for queries and documents, or the tower of one of them."""
        return "shared"

    @property
    def then_documents(self) -> Documents | None:
        """How documents learn after queries; none where they do not."""
        return None

    @property
    def train_splits_only(self) -> bool:
        """Whether datasets without a train split teach nothing, so that no fold needs a model of its own."""
        return False


class Labelled(Training):
    """Contrastive training on labelled pairs (MultipleNegativesRankingLoss)."""

    method: Literal["labelled"] = "labelled"
    splits: Literal["train", "all"] = Field(
        "all",
        description="train: datasets with a train split only; all: every dataset, test-only sets by cross-fitting",
    )
    batch_size: int = Field(32, ge=2, description="pairs per step; in-batch negatives grow with it")
    batches: Literal["per_dataset", "mixed"] = Field(
        "per_dataset", description="mixed: pairs of all datasets in one shuffled list"
    )
    titles: bool = Field(True, description="train on title + text, as scored; false: text only")
    prompts: bool = Field(True, description="train with the encoder's prompts, as scored; false: without")
    mask_false_negatives: bool = Field(
        True, description="no document counts as a negative of a query it is judged relevant to"
    )
    positives_per_query: int | None = Field(
        None, ge=1, description="cap on a query's positives per epoch, drawn anew each epoch"
    )
    hard_negatives: int = Field(0, ge=0, description="negatives per pair that the base model mines")

    @property
    def train_splits_only(self) -> bool:
        """As the setting ``splits`` says."""
        return self.splits == "train"


class Distillation(Settings):
    """A teacher that needs no labels: the base model's scores, corrected, on pseudo-queries from the corpus."""

    pseudo_queries: int = Field(4000, ge=64, description="taken from each corpus: titles, sentences, docstrings, names")
    queries: int = Field(96, ge=2, description="pseudo-queries per step")
    labelled: int = Field(64, ge=0, description="training queries per step, whose labels are added to the teacher's")
    documents: int = Field(64, ge=2, description="documents per step that the model reads anew")


class Documents(Settings):
    """After the queries' tower, documents learn by the same distillation from it."""

    epochs: int = Field(1, ge=1, description="passes over the pseudo-queries")
    learning_rate: float = Field(5e-5, gt=0, lt=1, description="peak learning rate of AdamW")
    weights: tuple[float, ...] = Field(
        (0.0, 0.25, 0.5, 0.75),
        min_length=1,
        description="weights of the documents' tower against the base, chosen on dev together with the queries'; "
        "0: documents stay, and every index of them",
    )

    @field_validator("weights")
    @classmethod
    def _weights(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if any(not 0 <= weight <= 1 for weight in value):
            raise ValueError("weights lie between 0 (documents stay) and 1")
        return value


class Distilled(Training):
    """Distillation of a corrected base model, training queries' labels added where there are any."""

    method: Literal["distilled"] = "distilled"
    towers: Literal["shared", "query"] = Field(
        "shared",
        description="shared: one model for queries and documents; query: queries get weights of their own and "
        "documents stay",
    )
    documents: Documents | None = Field(
        None,
        description="then train documents too, with towers: query; none: documents stay, and every index of them",
    )
    cross_fitted: Literal["labels", "corpus"] = Field(
        "labels",
        description="what a dataset with a test split only lends to training: labels: a model for each fold; "
        "corpus: its documents alone, one training for all folds, which select by its queries",
    )
    distillation: Distillation = Field(
        Distillation(), description="the teacher's pseudo-queries, and what a step takes"
    )

    @property
    def trains(self) -> Tower:
        """As the setting ``towers`` says."""
        return self.towers

    @property
    def then_documents(self) -> Documents | None:
        """As the setting ``documents`` says."""
        return self.documents

    @model_validator(mode="after")
    def _two_towers(self) -> Distilled:
        if self.documents is not None and self.towers != "query":
            raise ValueError(
                f"documents are trained after queries: expected towers: query, found {self.towers}; or documents: null"
            )
        return self


AnyTraining = Annotated[Labelled | Distilled, Field(discriminator="method")]
VARIANTS: dict[str, type[Training]] = {"labelled": Labelled, "distilled": Distilled}
