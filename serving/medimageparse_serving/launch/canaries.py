"""Whether the models of a running server segment their canaries, and the same each time."""

import http.client
import re
import time
from collections.abc import Sequence

from medimageparse_serving.launch import canary
from medimageparse_serving.launch.addresses import open_local
from medimageparse_serving.launch.launch_errors import ServeError
from medimageparse_serving.launch.model_calls import own_models
from medimageparse_serving.launch.service_metrics import ServiceMetrics
from medimageparse_serving.launch.triton_server import TritonServer

EXEC_COUNT = re.compile(r'nv_inference_exec_count\{model="(\w+)".*\} (\S+)')


class Canaries:
    """One of each model. The answers of the first time are right; they must not change, whatever is restarted."""

    def __init__(self, server: TritonServer, models: Sequence[str], metrics: ServiceMetrics, patience_s: float) -> None:
        """No answer in patience_s, while nothing else ends either, means hung."""
        self.server, self.models, self.metrics, self.patience_s = server, models, metrics, patience_s
        self.own_models = own_models(server.repository, models)
        self.expected: dict[str, str] = {}

    def warm_up(self) -> float:
        """The seconds that all took on a server that nobody else asks; CanaryError or ServeError for a wrong answer."""
        began = time.monotonic()
        for model in self.models:
            try:
                found = canary.segment(self.server.http_url, model, self.server.ready_timeout_s, self.server.inner_key)
            except canary.CanaryError as error:
                raise canary.CanaryError(f"{model} does not segment the canary: {error}") from None
            if self.expected.setdefault(model, found) != found:
                raise ServeError(f"{model} does not segment the canary as it did before: its answers are not sure")
            self.metrics.canary_is_right(model, time.monotonic() - began)
        return time.monotonic() - began

    def find_problem(self) -> str:
        """What is wrong with a model's answers, twice in a row; nothing if they are right or the server is busy."""
        for model in self.models:
            if self._ask(model):
                self.metrics.canary_is_wrong(model)
                if problem := self._ask(model):
                    return f"{model}: {problem}"
        return ""

    def _ask(self, model: str) -> str:
        deadline, before = time.monotonic() + self.patience_s, self._count_computations(model)
        while True:
            patience = max(deadline - time.monotonic(), 0.1)
            try:
                found = canary.segment(self.server.http_url, model, patience, self.server.inner_key)
            except canary.NoAnswerError:  # hung, or busy with other requests
                if time.monotonic() < deadline:
                    time.sleep(min(1, patience))
                elif any(n > before.get(m, 0) + 1 for m, n in self._count_computations(model).items()):
                    return ""  # one may be the canary's own, on its way to what hangs
                else:
                    return f"no answer to the canary in {self.patience_s:g} s, and no other request was finished"
            except canary.CanaryError as error:
                return f"no right answer to the canary: {error}"
            else:
                if found != self.expected[model]:
                    return "the canary was segmented wrong"
                self.metrics.canary_is_right(model, self.patience_s - (deadline - time.monotonic()))
                return ""

    def _count_computations(self, model: str) -> dict[str, int]:
        """How often the model, and each that only it calls, has finished one."""
        try:
            with open_local(self.server.metrics_url, timeout=5) as answer:
                counts = EXEC_COUNT.findall(answer.read().decode())
        except (OSError, http.client.HTTPException):
            return {}
        return {name: int(float(count)) for name, count in counts if name in self.own_models[model]}
