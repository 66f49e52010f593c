"""How long a request is, and what is read from a reply."""

from __future__ import annotations

import pytest
from openai.types.chat import ChatCompletion

from distill.teacher.answers import answer_schema
from distill.teacher.client import Request, read_completion
from distill.types import Usage

CHOICE = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "refund"}}


def test_the_schema_counts_as_part_of_the_prompt():
    plain = Request((("user", "refund"),), None, 0.0, 10)
    asked = Request((("user", "refund"),), answer_schema(["возврат", "кот"]), 0.0, 10)
    assert plain.characters == len("refund")
    assert asked.characters > plain.characters + len("возврат") + len("кот")
    assert asked.prompt_bytes - plain.prompt_bytes == asked.characters - plain.characters + len("возврат") + len("кот")


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
