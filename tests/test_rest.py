"""When photos are begun: by hand, by the hours of the config, and on battery."""

import re
import time
from dataclasses import replace
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stylewatch.domain import ALL_DAY, Hours, with_rests
from stylewatch.errors import ConfigError
from stylewatch.host.rest import BY_HAND, ON_BATTERY, Rest, on_battery
from stylewatch.settings.loading import config_schema, watch_config

NIGHT = "22:00-07:00"
PLUGGED = {"AC": {"type": "Mains", "online": "1"}, "BAT0": {"type": "Battery"}}


def at(hour, minute=0):
    """That time of some day, here."""
    return time.mktime((2026, 6, 15, hour, minute, 0, 0, 0, -1))


@pytest.fixture
def config(tmp_path):
    (tmp_path / "in").mkdir()

    def make(**settings):
        return watch_config(tmp_path / "in", tmp_path / "out", ["painting"], **settings)

    return make


@pytest.fixture
def supplies(tmp_path):
    """The kernel's files on what gives power."""

    def make(**machine):
        for name, values in machine.items():
            folder = tmp_path / "power_supply" / name
            folder.mkdir(parents=True, exist_ok=True)
            for key, value in values.items():
                (folder / key).write_text(f"{value}\n")
        return tmp_path / "power_supply"

    return make


minutes = st.integers(0, 1439)


class TestHours:
    @given(minutes, minutes, minutes)
    def test_a_part_of_the_day_and_the_rest_of_it_make_a_day(self, begin, end, minute):
        if begin != end:
            assert Hours(begin, end).cover(minute) != Hours(end, begin).cover(minute)

    @given(minutes, minutes, minutes)
    def test_after_its_wait_it_begins(self, begin, end, minute):
        hours = Hours(begin, end)
        begins = (minute + hours.wait(minute)) % 1440
        assert hours.cover(begins)
        assert begins == begin
        assert 0 <= hours.wait(minute) < 1440

    @pytest.mark.parametrize(
        ("written", "read"),
        [
            (NIGHT, (Hours(1320, 420),)),
            ("7:30 - 24:00", (Hours(450, 1440),)),
            ("12:00-13:00, 22:00-07:00", (Hours(720, 780), Hours(1320, 420))),
        ],
    )
    def test_as_people_write_them(self, config, written, read):
        assert config(hours=written).hours == read

    @pytest.mark.parametrize(
        "wrong",
        [
            "22-7",
            "25:00-07:00",
            "22:00-07:60",
            "8:00-8:00",
            "night",
            22,
            None,
            [NIGHT],
            "",
            "24:01-7:00",
        ],
    )
    def test_what_they_are_not(self, config, wrong):
        with pytest.raises(ConfigError, match="22:00-07:00") as raised:
            config(hours=wrong)
        assert raised.value.key == "hours"

    def test_a_whole_day_is_what_holds_without_them(self, config):
        [day] = config(hours="00:00-24:00").hours
        assert (day,) == config().hours
        assert all(day.cover(minute) for minute in range(1440))

    @pytest.mark.parametrize(
        ("begun", "work", "taken"),
        [
            ((22, 0), 9 * 60 - 1, 9 * 60 - 1),
            ((6, 50), 180, 10 + 15 * 60 + 170),  # ten minutes, and the rest from 22:00 on
            ((22, 0), 2 * 9 * 60 + 60, 2 * 1440 + 60),
            ((12, 0), 180, 180),  # somebody said `resume`
            ((12, 0), 10 * 60 + 9 * 60 + 60, 1440 + 10 * 60 + 60),
        ],
    )
    def test_what_takes_longer_rests_outside_of_them(self, begun, work, taken):
        minute = 60 * begun[0] + begun[1]
        assert with_rests(60 * work + 7, [Hours(1320, 420)], minute) == 60 * taken + 7

    @given(st.lists(st.tuples(minutes, minutes), min_size=1, max_size=3), minutes, minutes)
    def test_such_work_is_as_long_as_the_minutes_of_them_that_go_by(self, spans, minute, work):
        hours = [Hours(*span) for span in spans]
        taken = with_rests(60 * work, hours, minute)
        on = [any(each.cover(minute + n) for each in hours) for n in range(int(taken // 60))]
        begun = next((n for n, each in enumerate(on) if each), len(on))
        assert begun + sum(on) == work

    @given(st.floats(0, 1e7), minutes)
    def test_without_them_nothing_rests(self, seconds, minute):
        assert with_rests(seconds, ALL_DAY, minute) == pytest.approx(seconds)

    def test_editors_know_them(self):
        pattern = config_schema()["properties"]["hours"]["pattern"]
        assert re.search(pattern, NIGHT)
        assert not re.search(pattern, "22-7")


class TestRest:
    @pytest.fixture
    def resting(self, tmp_path):
        return partial(Rest, tmp_path / "paused")

    def follow(self, rest, config, *hours):
        said = []
        for hour in hours:
            rest.follow(config, at(hour))
            said.append(rest.why)
        return said

    def test_outside_of_the_hours_it_says_until_when(self, config, resting):
        night = config(hours=NIGHT)
        said = self.follow(resting(), night, 21, 22, 23, 0, 6, 7)
        assert said == ["until 22:00", "", "", "", "", "until 22:00"]

    def test_the_hours_are_those_of_the_time_zone_that_the_machine_is_in_by_now(
        self, config, resting, monkeypatch
    ):
        night, noon = config(hours=NIGHT), 1_781_524_800  # in UTC
        monkeypatch.setenv("TZ", "UTC")
        time.tzset()
        rest = resting()
        rest.follow(night, noon)
        assert rest.why == "until 22:00"
        monkeypatch.setenv("TZ", "AEST-10")
        rest.follow(night, noon)
        monkeypatch.undo()
        time.tzset()
        assert rest.why == ""

    def test_of_several_hours_it_waits_for_the_next(self, config, resting):
        both = config(hours="12:30-13:00,22:00-07:00")
        rest = resting()
        assert self.follow(rest, both, 8, 14, 23) == ["until 12:30", "until 22:00", ""]
        rest.follow(both, at(12, 45))
        assert rest.why == ""

    def test_resume_by_hand_holds_until_the_hours_have_come_and_gone(self, config, resting):
        rest, night = resting(), config(hours=NIGHT)
        self.follow(rest, night, 12)
        rest.resume()
        assert self.follow(rest, night, 13, 21, 23) == ["", "", ""]
        assert self.follow(rest, night, 8) == ["until 22:00"]

    def test_hours_that_the_machine_slept_through_have_come_and_gone(self, config, resting):
        rest, night = resting(), config(hours=NIGHT)
        self.follow(rest, night, 20)
        rest.resume()
        rest.follow(night, at(8) + 86400)
        assert rest.why == "until 22:00"

    def test_a_resume_holds_over_midnight_and_while_the_clocks_are_changed(
        self, config, resting, monkeypatch
    ):
        monkeypatch.setenv("TZ", "CET-1CEST,M3.5.0,M10.5.0/3")
        time.tzset()
        evening = time.mktime((2026, 10, 24, 20, 0, 0, 0, 0, -1))  # of a night of one hour more
        rest, morning = resting(), config(hours="05:00-07:00")
        rest.follow(morning, evening)
        rest.resume()
        said = set()
        for minutes in range(0, 10 * 60, 30):
            rest.follow(morning, evening + 60 * minutes)
            said.add(rest.why)
        monkeypatch.undo()
        time.tzset()
        assert said == {""}

    def test_pause_takes_a_resume_by_hand_back(self, config, resting):
        rest, night = resting(), config(hours=NIGHT)
        self.follow(rest, night, 12)
        rest.resume()
        rest.pause()
        assert rest.why == "until 22:00"
        assert self.follow(rest, night, 23) == [""]

    def test_pause_by_hand_holds_whatever_the_hour(self, config, resting):
        rest, night = resting(), config(hours=NIGHT)
        self.follow(rest, night, 12)
        rest.pause()
        assert self.follow(rest, night, 13, 23, 8) == [BY_HAND] * 3
        rest.resume()
        assert rest.why == "", "a person wants it now"

    def test_a_pause_by_hand_outlives_the_daemon(self, config, resting):
        resting().pause()
        rest = resting()
        assert rest.why == BY_HAND
        rest.resume()
        assert resting().why == ""
        night = config(hours=NIGHT)
        self.follow(rest, night, 12)
        rest.resume()
        rest.pause()
        assert resting().why == "", "it took the resume back, no more"

    def test_other_hours_are_followed_though_a_person_resumed(self, config, resting):
        rest = resting()
        self.follow(rest, config(hours=NIGHT), 12)
        rest.resume()
        assert self.follow(rest, config(hours="20:00-07:00"), 12) == ["until 20:00"]
        assert self.follow(rest, config(), 12) == [""]

    def test_on_battery_it_waits_for_the_plug_if_it_should(self, config, resting, supplies):
        rest = resting(
            supplies(
                AC={"type": "Mains", "online": "0"},
                BAT0={"type": "Battery", "status": "Discharging"},
            )
        )
        assert self.follow(rest, config(), 12) == [""]
        waits = config(on_battery="wait")
        assert self.follow(rest, waits, 12) == ["while on battery"]
        supplies(AC={"online": "1"}, BAT0={"status": "Charging"})
        assert self.follow(rest, waits, 12) == [""]

    def test_who_resumes_at_noon_does_not_empty_the_battery_later(self, config, resting, supplies):
        rest, waits = resting(supplies(**PLUGGED)), config(hours=NIGHT, on_battery="wait")
        self.follow(rest, waits, 12)
        rest.resume()
        assert self.follow(rest, waits, 13) == [""]
        supplies(AC={"online": "0"}, BAT0={"status": "Discharging"})
        assert self.follow(rest, waits, 14) == [ON_BATTERY]
        rest.resume()
        assert self.follow(rest, waits, 14, 23) == ["", ""], "a person wants it, on battery too"
        supplies(**PLUGGED)
        supplies(BAT0={"status": "Charging"})
        assert self.follow(rest, waits, 0, 8) == ["", "until 22:00"]

    def test_who_pulls_the_plug_back_in_goes_on(self, config, resting, supplies):
        rest, waits = resting(supplies(**PLUGGED)), config(hours=NIGHT, on_battery="wait")
        self.follow(rest, waits, 12)
        rest.resume()
        supplies(AC={"online": "0"}, BAT0={"status": "Discharging"})
        assert self.follow(rest, waits, 14) == [ON_BATTERY]
        supplies(**PLUGGED)
        assert self.follow(rest, waits, 14) == [""]


@pytest.mark.parametrize(
    ("machine", "empties"),
    [
        ({}, False),
        ({"BAT0": {"type": "Battery", "status": "Discharging"}}, True),
        ({"BAT0": {"type": "Battery", "status": "Full"}}, False),
        ({"BAT0": {"type": "Battery", "status": "Discharging"},
          "AC": {"type": "Mains", "online": "0"}}, True),
        ({"BAT0": {"type": "Battery", "status": "Discharging"},
          "ucsi": {"type": "USB", "online": "1"}}, False),
        ({"BAT0": {"type": "Battery", "status": "Not charging", "online": "1"},
          "BAT1": {"type": "Battery", "status": "Discharging"}}, True),
        ({"mouse": {"type": "Battery", "scope": "Device", "status": "Discharging"}}, False),
    ],
)  # fmt: skip
def test_a_machine_is_on_battery_when_its_own_is_emptied(supplies, tmp_path, machine, empties):
    assert on_battery(supplies(**machine)) is empties


def test_a_machine_that_tells_nothing_has_no_battery(tmp_path):
    assert on_battery(tmp_path / "none") is False


class TestDaemon:
    """The same through a daemon, whose clock is turned."""

    @pytest.fixture
    def rig(self, rigs):
        rig = rigs(start=False, hours=NIGHT).build()
        self.now = at(12)
        rig.daemon._wall_clock = lambda: self.now
        rig.daemon.start(time.monotonic())
        return rig

    def told(self, rig):
        return [e.message for e in rig.events if e.kind in {"paused", "resumed"}]

    def test_photos_wait_for_their_hours_and_finish_what_they_began(self, rig):
        (rig.input / "a.jpg").write_bytes(b"a")
        rig.until(lambda: rig.counts().get("ready"))
        rig.look_around()
        assert rig.results() == []
        status = rig.daemon._status()
        assert (status["paused"], status["paused_why"]) == (True, "until 22:00")
        self.now = at(22)
        rig.until(lambda: rig.results() == ["a--painting.jpg"])
        assert self.told(rig) == [
            "paused until 22:00: no more photos are begun; `stylewatch resume` begins them",
            "resumed",
        ]
        assert rig.daemon._status()["paused_why"] == ""

    def test_resume_by_hand_paints_now(self, rig):
        (rig.input / "a.jpg").write_bytes(b"a")
        rig.until(lambda: rig.counts().get("ready"))
        rig.daemon.ask("resume")
        rig.until(lambda: rig.results() == ["a--painting.jpg"])
        rig.daemon.ask("pause")
        rig.until(lambda: rig.daemon._status()["paused"])
        assert rig.daemon._status()["paused_why"] == "until 22:00"

    def test_a_pause_by_hand_is_told_by_the_next_daemon(self, rig):
        self.now = at(23)
        rig.queue("a.jpg")
        rig.stop()
        rig.events.clear()
        rig.start()
        rig.look_around()
        assert self.told(rig) == [
            "paused by hand: no more photos are begun; `stylewatch resume` begins them"
        ]
        assert rig.results() == []
        rig.asked("resume")
        rig.until(lambda: rig.results() == ["a--painting.jpg"])

    def test_a_reload_brings_other_hours(self, rig):
        rig.until(lambda: rig.daemon._status()["paused"])
        plain = rig.config
        rig.daemon._load = lambda: replace(plain(), hours=(Hours(0, 1440),))
        rig.daemon.ask("reload")
        rig.until(lambda: not rig.daemon._status()["paused"])
        assert self.told(rig)[-1] == "resumed"


def test_whoever_counts_the_time_left_is_told_of_the_hours_and_of_others(rigs):
    rig = rigs(hours=NIGHT)
    [started] = [event.extra for event in rig.events if event.kind == "started"]
    assert started == {"slots": 1, "hours": [(1320, 420)]}
    rig.settings["hours"] = "12:00-13:00"
    rig.asked("reload")
    rig.daemon.tick(time.monotonic() + 2)
    assert [e.extra["hours"] for e in rig.events if "hours" in e.extra][1:] == [[(720, 780)]]
    assert rig.daemon._status()["hours"] == [(720, 780)]
