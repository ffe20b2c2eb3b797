# SPDX-License-Identifier: Apache-2.0
"""Signals are remembered within the context, once, and only there."""

import os
import signal

import pytest

from dropoutnet_jax.training import signals


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_is_remembered_by_name(number):
  before = {n: signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)}
  with signals.StopRequest() as stop:
    assert stop.name == ''
    os.kill(os.getpid(), number)
    assert stop.name == number.name
    # A second one of the same kind ends the process, as without us.
    assert signal.getsignal(number) == signal.SIG_DFL
    other = ({signal.SIGTERM, signal.SIGINT} - {number}).pop()
    assert callable(signal.getsignal(other))
  for n, handler in before.items():
    assert signal.getsignal(n) == handler


def test_handlers_come_back_after_an_error():
  before = signal.getsignal(signal.SIGINT)
  with pytest.raises(ValueError), signals.StopRequest():
    raise ValueError
  assert signal.getsignal(signal.SIGINT) == before
