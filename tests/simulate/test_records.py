from __future__ import annotations

import io

import numpy as np
import pytest

from metacalo.simulate.records import Deposits, Journal, read_message, write_message


def deposits(index: int) -> Deposits:
    cells = np.arange(index, index + 7, dtype=np.int32)
    values = np.linspace(0.1, index + 1, 7).astype(np.float32)
    return Deposits(index, 1000.0 + index, 1.2, 0.3, 200.0, 790.0, 1.5, 0.02, cells, values)


def same(one: Deposits, other: Deposits) -> bool:
    arrays = all(np.array_equal(getattr(one, name), getattr(other, name)) for name in ("cells", "values"))
    rest = {name: value for name, value in vars(one).items() if name not in {"cells", "values"}}
    return arrays and rest == {name: vars(other)[name] for name in rest}


def test_deposits_come_back_as_they_were():
    assert same(Deposits.from_bytes(deposits(3).to_bytes()), deposits(3))


def test_messages_one_after_the_other_and_an_end_within_one():
    stream = io.BytesIO()
    write_message(stream, "ready", b"{}")
    write_message(stream, "shower", b"abc")
    whole = stream.getvalue()
    stream.seek(0)
    assert read_message(stream) == ("ready", b"{}")
    assert read_message(stream) == ("shower", b"abc")
    assert read_message(stream) is None
    for length in range(len(whole) - 7, len(whole)):
        cut = io.BytesIO(whole[:length])
        assert read_message(cut) == ("ready", b"{}")
        assert read_message(cut) is None


def test_a_journal_has_what_was_appended_and_goes_on(tmp_path):
    journal = Journal(tmp_path / "journal")
    for index in (5, 0):
        journal.append(deposits(index))
    assert same(journal.read(5), deposits(5))
    journal.append(deposits(2))  # reading did not move the end
    journal.close()
    again = Journal(tmp_path / "journal")
    assert len(again) == 3
    assert [index for index in range(6) if index in again] == [0, 2, 5]
    assert all(same(again.read(index), deposits(index)) for index in (0, 2, 5))
    again.close()


def test_wherever_a_journal_is_cut_whole_showers_stay(tmp_path):
    path = tmp_path / "journal"
    journal = Journal(path)
    ends = [0]
    for index in range(3):
        journal.append(deposits(index))
        ends.append(path.stat().st_size)
    journal.close()
    content = path.read_bytes()
    for length in range(len(content)):
        path.write_bytes(content[:length])
        cut = Journal(path)
        assert len(cut) == sum(end <= length for end in ends[1:])
        cut.append(deposits(7))
        cut.close()
        mended = Journal(path)
        assert 7 in mended
        assert same(mended.read(7), deposits(7))
        mended.close()


@pytest.mark.parametrize("place", [3, 12, -1])
def test_a_damaged_shower_ends_a_journal(tmp_path, place):
    path = tmp_path / "journal"
    journal = Journal(path)
    journal.append(deposits(0))
    start = path.stat().st_size
    journal.append(deposits(1))
    journal.close()
    content = bytearray(path.read_bytes())
    content[start + place if place >= 0 else place] ^= 1
    path.write_bytes(content)
    damaged = Journal(path)
    assert len(damaged) == 1
    damaged.close()
