"""What is read from a reply."""

from __future__ import annotations

import pytest
from openai.types.chat import ChatCompletion

from distill.teacher.client import read_completion
from distill.types import Usage

CHOICE = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "refund"}}


@pytest.mark.parametrize(
    ("counted", "usage"),
    [
        ({"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110}, Usage(100, 10)),
        ({"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 510}, Usage(100, 410)),
        ({"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 0}, Usage(100, 10)),
        ({"prompt_tokens": 100, "completion_tokens": 10}, Usage(100, 10)),
        ({"prompt_tokens": 100, "total_tokens": 130}, Usage(100, 30)),
        ({"prompt_tokens": 100, "total_tokens": 100}, Usage(100, None)),
        ({"completion_tokens": 10, "total_tokens": 510}, Usage(None, 10)),
    ],
)
def test_tokens_of_reasoning_are_counted_where_the_total_alone_holds_them(counted, usage):
    _, found, _, _ = read_completion(ChatCompletion.construct(choices=[CHOICE], usage=counted))
    assert found == usage
