"""What has been taken is answered once, each as its verdict says, however the verdicts come."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from services.chassis.deliveries import Delivery, Line, Verdict

DONE, BACK = Verdict.DONE, Verdict.BACK


class Broker:
    """A channel as the broker sees it: what it has delivered and not heard of."""

    def __init__(self, delivered: int):
        self.open = list(range(1, delivered + 1))
        self.answers: dict[int, Verdict] = {}
        self.frames = 0

    def basic_ack(self, tag: int, multiple: bool = False) -> None:
        for one in [open for open in self.open if open <= tag] if multiple else [tag]:
            self._answer(one, DONE)
        self.frames += 1

    def basic_reject(self, tag: int, requeue: bool) -> None:
        assert requeue
        self._answer(tag, BACK)
        self.frames += 1

    def _answer(self, tag: int, verdict: Verdict) -> None:
        self.open.remove(tag)  # fails if it was answered before, as the broker does
        self.answers[tag] = verdict


def line(taken: int) -> tuple[Line, Broker]:
    broker = Broker(taken)
    made = Line(broker)
    for tag in range(1, taken + 1):
        made.took(tag)
    return made, broker


@given(st.data())
def test_each_message_is_answered_as_its_verdict_says_and_no_other_with_it(data: st.DataObject) -> None:
    taken = data.draw(st.integers(1, 12))
    made, broker = line(taken)
    waiting = data.draw(st.permutations(range(1, taken + 1)))
    expected: dict[int, Verdict] = {}
    while waiting:
        count = data.draw(st.integers(1, len(waiting)))
        verdicts = {tag: data.draw(st.sampled_from([DONE, BACK])) for tag in waiting[:count]}
        waiting = waiting[count:]
        made.answer(verdicts)
        expected |= verdicts
        assert broker.answers == expected
    assert broker.open == []


def test_a_batch_is_acknowledged_by_one_frame() -> None:
    made, broker = line(50)
    made.answer(dict.fromkeys(range(1, 51), DONE))
    assert (broker.frames, broker.open) == (1, [])


def test_what_comes_behind_an_open_message_is_acknowledged_one_by_one() -> None:
    made, broker = line(5)
    made.answer({1: DONE, 2: DONE, 4: DONE, 5: DONE})
    assert (broker.frames, broker.open) == (3, [3])


def test_one_that_failed_or_that_a_worker_died_on_does_not_come_for_the_first_time() -> None:
    def with_headers(headers: dict[str, object]) -> Delivery:
        return Delivery(Line(None), 1, "q", b"", headers=headers)

    assert with_headers({}).first_time
    assert not with_headers({"x-steward-attempt": 1}).first_time
    assert not with_headers({"x-delivery-count": 1}).first_time
    assert with_headers({"x-steward-attempt": "odd"}).attempts == 0
