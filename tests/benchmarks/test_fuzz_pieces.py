"""The fuzz campaign in pieces sends what a whole run sends."""

from benchmarks.fuzz.run import BLOCK, blocks


def test_pieces_have_the_blocks_of_the_whole():
    whole = blocks(100_000, 0)
    assert whole == [*blocks(40_000, 0), *blocks(35_000, 40_000), *blocks(25_000, 75_000)]
    assert [number for number, _ in whole] == list(range(100))


def test_only_the_last_block_may_be_smaller():
    assert blocks(2500, 3000) == [(3, BLOCK), (4, BLOCK), (5, 500)]
    assert blocks(10, 0) == [(0, 10)]
