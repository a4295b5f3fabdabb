from ray.tune.search import Searcher

from sweeps.seats import Seats, WhenOver


def test_each_group_gets_one_seat_and_then_none_is_due() -> None:
    seats = Seats(3, {"folder": "x"})
    assert [seats.suggest(f"t{n}") for n in range(3)] == [{"folder": "x", "group": n} for n in range(3)]
    assert seats.suggest("t3") is None
    assert seats.suggest("t4") is None


def test_a_seat_is_handed_out_again_when_its_time_has_come() -> None:
    now = [100.0]
    seats = Seats(2, timer=lambda: now[0])
    assert [seats.suggest("a"), seats.suggest("b")] == [{"group": 0}, {"group": 1}]
    seats.again(1, 4.0)
    seats.again(0, 2.0)
    found = []
    for _ in range(5):
        found.append(seats.suggest("c"))
        now[0] += 1.0
    assert found == [None, None, {"group": 0}, None, {"group": 1}]


def test_when_it_is_over_no_seat_is_left_and_all_that_wait_are_stopped() -> None:
    seats = Seats(2)
    stop = WhenOver(seats)
    assert seats.suggest("a") == {"group": 0}
    assert not stop.stop_all()
    assert not stop("a", {"done": True})
    seats.over = True
    assert seats.suggest("b") == Searcher.FINISHED
    assert stop.stop_all()


def test_results_and_ends_change_nothing() -> None:
    seats = Seats(2)
    seats.suggest("a")
    seats.on_trial_result("a", {"trials": 1})
    seats.on_trial_complete("a", error=True)
    assert seats.suggest("b") == {"group": 1}
    assert seats.set_search_properties("trials", "min", {})
