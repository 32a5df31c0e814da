import pytest

from reflect_rl.envs.autoexplore import marks

ACTIONS = ("cd a", "cat b.txt", "id b.txt", "cat c.txt", "id c.txt", "cd ..")


@pytest.mark.parametrize(
    "advice, taken, response",
    [
        ("cat b.txt", "cat b.txt", marks.ADVISED),
        ("cat b.txt", "id b.txt", marks.UNREAD),
        ("cat b.txt", "cat c.txt", marks.ANOTHER),
        ("cat b.txt", "id c.txt", marks.OTHER),
        ("cat b.txt", "cd a", marks.OTHER),
        ("id b.txt", "id c.txt", marks.ANOTHER),
        ("id b.txt", "cat b.txt", marks.OTHER),
        ("cd a", "cd ..", marks.ANOTHER),
        ("cat gone.txt", "cat b.txt", marks.NONE),
        ("", "cd a", marks.NONE),
    ],
)
def test_what_a_policy_does_with_its_advice(advice, taken, response):
    assert marks.response(f"Not the file. Next: {advice}", ACTIONS, ACTIONS.index(taken)) == response
    assert response in marks.RESPONSES


def test_a_file_that_was_read_is_recognised_or_taken_for_another():
    right = {"match": "the file", "evidence": "wigs is wigs, yes"}
    wrong = {"match": "not the file", "evidence": "wigs is ladders, no"}
    assert marks.recognition(right, right) == {"recall": True, "evidence": True}
    assert marks.recognition(right, wrong) == {"recall": False, "evidence": False}
    assert marks.recognition(wrong, wrong) == {"false_positives": False, "evidence": True}
    assert marks.recognition(wrong, right | {"evidence": wrong["evidence"]}) == {
        "false_positives": True,
        "evidence": True,
    }
    assert marks.recognition(wrong, {}) == {"false_positives": False, "evidence": False}
    assert marks.recognition({}, right) == {}  # no file was read
