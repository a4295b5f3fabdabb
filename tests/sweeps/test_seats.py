import json

from ray.tune.search import Searcher

from sweeps.seats import Seats


def test_each_group_gets_one_seat_and_then_it_is_over():
    seats = Seats(3, {"folder": "x"})
    assert [seats.suggest(f"t{n}") for n in range(3)] == [{"folder": "x", "group": n} for n in range(3)]
    assert seats.suggest("t3") == seats.suggest("t4") == Searcher.FINISHED


def test_results_and_ends_change_nothing():
    seats = Seats(2)
    seats.suggest("a")
    seats.on_trial_result("a", {"trials": 1})
    seats.on_trial_complete("a", error=True)
    assert seats.suggest("b") == {"group": 1}
    assert seats.set_search_properties("trials", "min", {})


def test_saved_as_json_and_restored(tmp_path):
    seats = Seats(2)
    seats.suggest("a")
    seats.save_to_dir(str(tmp_path), "s")
    (file,) = tmp_path.iterdir()
    assert json.loads(file.read_text()) == {"next": 1}
    again = Seats(2)
    again.restore_from_dir(str(tmp_path))
    assert again.suggest("b") == {"group": 1}
    assert again.suggest("c") == Searcher.FINISHED
