"""tritonserver dies, comes back, and goes."""

import os
import signal
import threading
from contextlib import ExitStack

import numpy as np
from helpers.azure_requests import table_of
from helpers.azure_toolkit import Toolkit
from helpers.gateway_process import gateway_process
from helpers.image_answers import image_file
from helpers.running_server import serving, triton_of, wait_until

N_CALLERS = 3


def test_a_restart_of_triton_costs_the_toolkit_no_image(tmp_path, images_alone, xrays):
    results, is_over = [], threading.Event()

    def ask(gateway):
        while not is_over.is_set():
            [result] = Toolkit(f"{gateway.url}/score", wait_scale=0.2).submit(xrays[:1], ["heart"])
            results.append(result["image_features"])

    with (
        serving(tmp_path / "log", images_alone, "--canary-interval=1") as service,
        gateway_process(tmp_path / "gateway", service.grpc) as gateway,
    ):
        threads = [threading.Thread(target=ask, args=(gateway,)) for _ in range(N_CALLERS)]
        for thread in threads:
            thread.start()
        wait_until(lambda: len(results) >= N_CALLERS)
        triton, _, _ = triton_of(service)
        os.kill(triton, signal.SIGKILL)
        n_before = len(results)
        wait_until(lambda: len(results) >= n_before + 4 * N_CALLERS)
        is_over.set()
        for thread in threads:
            thread.join()
        assert gateway.ask("/ready").status == 200
    assert all(np.array_equal(masks, results[0]) for masks in results)


def test_without_triton_the_front_door_lives_and_asks_to_come_again(tmp_path, images_alone, xrays):
    body = table_of(image_file(xrays[0][::2, ::2]))
    with ExitStack() as gateways:
        with serving(tmp_path / "log", images_alone) as service:
            gateway = gateways.enter_context(gateway_process(tmp_path / "gateway", service.grpc, retry_for_s=1.0))
            assert gateway.ask("/score", body).status == 200
        answer = gateway.ask("/score", body)
        assert (answer.status, gateway.ask("/ready").status, gateway.ask("/").status) == (503, 503, 200)
        assert int(answer.headers["retry-after"]) > 0
        assert "try again later" in answer.json()["error"]["message"]
