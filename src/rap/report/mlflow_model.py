"""A trained adapter as a model of MLflow: queries in, embeddings out. MLflow runs this file when it loads the model.

model = mlflow.pyfunc.load_model("models:/m-…")
model.predict(pandas.DataFrame({"query": ["a dog jumps"]}))

The backbone is not part of the model. Its folder is that of the training, or the one named at loading:
load_model(uri, model_config={"backbone_folder": "data/backbones/ViT-B-32"}).
"""

import numpy as np
import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel, PythonModelContext


class Captions(PythonModel):
    """Embeddings of captions, float32 [Q, E], L2-normalised."""

    def load_context(self, context: PythonModelContext) -> None:
        from rap.retrieval.pretrained import from_pretrained  # imports torch, which logging a model does not need

        self.model = from_pretrained(context.artifacts["adapter"], context.model_config["backbone_folder"])

    def predict(self, context, model_input: pd.DataFrame, params: dict | None = None) -> np.ndarray:
        return self.model.texts(list(model_input["query"])).numpy()


set_model(Captions())
