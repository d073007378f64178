"""Work that nobody waits for takes at most its share of the device's time."""

from hypothesis import given, settings
from hypothesis import strategies as st

from delayed_vlm_ros.inference.duty import DutyLimit


@settings(max_examples=50)
@given(
    st.floats(0.01, 1.0),
    st.lists(st.tuples(st.floats(0.001, 5.0), st.floats(0.0, 20.0)), min_size=1, max_size=30),
)
def test_work_never_takes_more_than_its_share_between_the_starts_of_two_checks(max_duty, work):
    """Each piece of work is followed by its rest, whatever the device did before: idle time is not saved up."""
    duty = DutyLimit(max_duty)
    now = 50.0
    for seconds, idle_sec in work:
        assert duty.allows(now)
        began = now
        now += seconds
        duty.add(seconds, now)
        assert max_duty > 0.999 or not duty.allows(began + seconds / max_duty - 1e-3 * seconds / max_duty)
        now = began + seconds / max_duty + 1e-6 + idle_sec
