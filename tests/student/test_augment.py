"""New texts from known ones."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill.student.augment import _text_of, augment, more_texts, plain_word, words_of

TEXTS = st.lists(st.text("abc ", min_size=1, max_size=20), max_size=8)


@given(TEXTS, st.integers(0, 8), st.integers(0, 5))
def test_augmented_texts_are_new_distinct_and_reproducible(texts, times, seed):
    new = augment(texts, times, seed)
    assert new == augment(texts, times, seed)
    assert len(new) == len(set(new)) <= times * len(texts)
    assert not set(new) & set(texts)
    assert set(" ".join(new).split()) <= set(" ".join(texts).split())


@given(TEXTS, st.integers(0, 30), st.integers(0, 5))
def test_more_texts_are_new_distinct_and_reproducible(texts, n, seed):
    known, groups = augment(texts, 2, seed), [len(text) % 2 for text in texts]
    new = more_texts(texts, groups, n, seed, known=known)
    assert new == more_texts(texts, groups, n, seed, known=known)
    assert len(new) == len(set(new)) <= n
    assert not set(new) & {*texts, *known}
    assert set(" ".join(new).split()) <= set(" ".join(texts).split())


def test_as_many_more_texts_as_wanted_where_there_are_words_enough():
    texts = [f"please send {n} coins to account {n + 100} by noon tomorrow" for n in range(20)]
    assert len(more_texts(texts, [0] * 20, 2_000, 0)) == 2_000


def test_most_are_made_of_texts_of_one_group():
    texts = ["a1 a2 a3 a4 a5 a6 a7 a8", "a9 aa ab ac ad ae af ag", "b1 b2 b3 b4 b5 b6 b7 b8", "b9 ba bb bc bd be bf bg"]

    def share_of_one_group(groups):
        new = set(more_texts(texts, groups, 2_000, 0)) - set(augment(texts, 250, 0))
        return sum(len({word[0] for word in text.split()}) == 1 for text in new) / len(new)

    assert share_of_one_group([0, 0, 1, 1]) > 0.8
    assert share_of_one_group([0, 0, 0, 0]) < 0.75


CHINESE = [
    "我的账单什么时候到期", "请帮我冻结信用卡", "怎么把钱转到另一个账户", "我想查询余额", "附近有没有自动取款机",
    "我的密码忘记了怎么办", "能不能提高我的额度", "国外刷卡收多少手续费", "我要挂失银行卡", "怎样申请新的支票簿",
]  # fmt: skip


def test_spaces_in_scripts_that_need_none_are_kept():
    texts = ["ขอ ยกเลิก บัตร", "我要去 New York 的票"]
    assert any(" ยกเลิก" in text for text in augment(texts, 12, 0))
    assert any(" York 的" in text for text in augment(texts, 12, 0))
    assert plain_word(" York") == "york"


def test_scripts_without_spaces_are_varied_by_letters():
    new = augment(CHINESE, 20, 0)
    assert len(new) > 120
    assert not any(" " in text for text in new)
    assert set("".join(new)) <= set("".join(CHINESE))
    assert len(more_texts(CHINESE, range(10), 300, 0, known=new)) == 300


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Pay my  bill, now!", ["Pay", "my", "bill,", "now!"]),
        ("내 카드 분실", ["내", "카드", "분실"]),
        ("用iPhone付款吗\uff1f", ["用", "iPhone", "付", "款", "吗", "\uff1f"]),
        ("ที่นี่", ["ที่", "นี่"]),
        ("去 New York 的票", ["去", " New", " York", " 的", "票"]),
        ("ขอ บัตร", ["ข", "อ", " บั", "ต", "ร"]),
    ],
)
def test_words_of_a_text(text, words):
    assert words_of(text) == words
    assert _text_of(words) == " ".join(text.split())
