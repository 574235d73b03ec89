"""The optimisers against SciPy, a textbook L-BFGS, and themselves."""

import itertools
import tracemalloc
import weakref

import numpy as np
import pytest
from keras import ops
from scipy.optimize import minimize as scipy_minimize
from scipy.optimize import rosen, rosen_der

from stylewatch.engine.curvature import FREE, Preconditioner
from stylewatch.engine.optimizers import minimize


class Given(Preconditioner):
    """A function as a preconditioner that learns nothing."""

    def __init__(self, function):
        self._function = function

    def __call__(self, vector):
        return self._function(vector)


def quadratic(seed=0, size=40, condition=1e3):
    """½ xᵀAx - bᵀx with a known minimum; returns (evaluate, minimum value)."""
    rng = np.random.default_rng(seed)
    basis, _ = np.linalg.qr(rng.normal(size=(size, size)))
    a = basis @ np.diag(np.geomspace(1, condition, size)) @ basis.T
    b = rng.normal(size=size)

    def evaluate(x):
        point = np.asarray(x, np.float64)
        value = 0.5 * point @ a @ point - b @ point
        return float(value), ops.convert_to_tensor((a @ point - b).astype(np.float32))

    return evaluate, float(-0.5 * b @ np.linalg.solve(a, b))


def losses_of(optimizer, evaluate, size, evaluations, history=10):
    seen = []

    def on_iterate(iterate):
        seen.append(iterate)
        return True

    start = ops.zeros((size,), dtype="float32")
    best = minimize(
        evaluate, start, on_iterate, optimizer=optimizer, evaluations=evaluations, history=history
    )
    return best, seen


@pytest.mark.parametrize("optimizer", ["lbfgs", "lbfgs-scipy"])
def test_lbfgs_finds_the_minimum_of_an_ill_conditioned_quadratic(optimizer):
    evaluate, minimum = quadratic()
    _, seen = losses_of(optimizer, evaluate, 40, 150)
    assert seen[-1].best_loss == pytest.approx(minimum, rel=1e-3)


def test_lbfgs_needs_about_as_many_evaluations_as_scipy_on_rosenbrock():
    def evaluate(x):
        point = np.asarray(x, np.float64) / 100  # as wide as pixel values are
        gradient = (rosen_der(point) / 100).astype(np.float32)
        return float(rosen(point)), ops.convert_to_tensor(gradient)

    _, ours = losses_of("lbfgs", evaluate, 10, 250)
    reference = scipy_minimize(rosen, np.zeros(10), jac=rosen_der, method="L-BFGS-B")
    needed = next(i for i, iterate in enumerate(ours, start=1) if iterate.best_loss < 1e-3)
    assert reference.fun < 1e-3
    assert needed <= 2 * reference.nfev


@pytest.mark.parametrize("optimizer", ["lbfgs", "lbfgs-scipy", "adam"])
def test_the_budget_of_evaluations_is_kept_and_the_best_is_returned(optimizer):
    evaluate, _ = quadratic()
    best, seen = losses_of(optimizer, evaluate, 40, 17)
    assert len(seen) == 17
    assert evaluate(best)[0] == pytest.approx(seen[-1].best_loss, rel=1e-4)
    assert seen[-1].best_loss == pytest.approx(min(iterate.loss for iterate in seen), rel=1e-6)


@pytest.mark.parametrize("optimizer", ["lbfgs", "lbfgs-scipy", "adam"])
def test_the_unit_of_the_loss_makes_no_difference(optimizer):
    evaluate, _ = quadratic()

    def losses(unit):
        _, seen = losses_of(optimizer, lambda x: [unit * each for each in evaluate(x)], 40, 12)
        return [iterate.loss / unit for iterate in seen]

    assert losses(2.0**45) == pytest.approx(losses(2.0**-45), rel=1e-5)


@pytest.mark.parametrize(
    ("optimizer", "bounds"),
    [("lbfgs", FREE), ("lbfgs", (-99.0, 99.0)), ("lbfgs-scipy", (-99.0, 99.0))],
)
def test_the_first_step_changes_no_value_by_more_than_ten_grey_levels(optimizer, bounds):
    evaluate, _ = quadratic()
    seen = []
    minimize(
        lambda x: seen.append(np.asarray(x)) or evaluate(x), ops.zeros((40,)), lambda _: True,
        optimizer=optimizer, evaluations=2, bounds=bounds,
    )  # fmt: skip
    assert np.abs(seen[1]).max() == pytest.approx(10.0)


@pytest.mark.parametrize("optimizer", ["lbfgs", "lbfgs-scipy", "adam"])
def test_the_caller_can_stop_after_any_evaluation(optimizer):
    evaluate, _ = quadratic()
    seen = []

    def on_iterate(iterate):
        seen.append(iterate)
        return len(seen) < 5

    minimize(evaluate, ops.zeros((40,)), on_iterate, optimizer=optimizer, evaluations=100)
    assert len(seen) == 5


def without_loss(evaluate, when):
    """`evaluate`, but in the calls, counted from 1, `when` it gives no number."""
    calls = itertools.count(1)

    def sometimes_nan(x):
        value, gradient = evaluate(x)
        return (float("nan") if when(next(calls)) else value), gradient

    return sometimes_nan


def test_lbfgs_never_accepts_a_higher_loss_and_survives_nan():
    evaluate, minimum = quadratic(condition=50.0)
    sometimes_nan = without_loss(evaluate, lambda call: call % 4 == 0)
    _, seen = losses_of("lbfgs", sometimes_nan, 40, 120)
    bests = [iterate.best_loss for iterate in seen]
    assert bests == sorted(bests, reverse=True)
    assert bests[-1] == pytest.approx(minimum, rel=1e-2)


def test_lbfgs_begins_anew_where_no_step_along_its_model_is_good_enough():
    evaluate, minimum = quadratic(condition=50.0)
    dark_for_a_while = without_loss(evaluate, lambda call: 10 < call <= 16)
    _, seen = losses_of("lbfgs", dark_for_a_while, 40, 100)
    assert len(seen) == 100
    assert seen[-1].best_loss == pytest.approx(minimum, rel=1e-2)


def on_the_host(evaluate):
    def host(x):
        assert isinstance(x, np.ndarray)
        loss, gradient = evaluate(x)
        gradient = np.array(gradient)
        gradient.flags.writeable = False  # it may be a tensor's own memory
        return loss, gradient

    return host


def test_lbfgs_on_the_host_goes_the_way_that_it_goes_on_the_device():
    evaluate, minimum = quadratic()
    _, device = losses_of("lbfgs", evaluate, 40, 150)
    seen = []
    best = minimize(
        on_the_host(evaluate), np.zeros(40, np.float32), lambda it: seen.append(it) or True,
        optimizer="lbfgs", evaluations=150,
    )  # fmt: skip
    assert [it.loss for it in seen[:30]] == pytest.approx([it.loss for it in device[:30]], rel=1e-3)
    assert seen[-1].best_loss == pytest.approx(minimum, rel=1e-3)
    assert evaluate(best)[0] == pytest.approx(seen[-1].best_loss, rel=1e-4)


def textbook(evaluate, x, matrix_of, evaluations, history):
    """The losses of L-BFGS by two loops (Nocedal and Wright, algorithm 7.4), in float64.

    Where no pair has a say, the curvature is half the median of what they say. A step that has
    shown no upward curvature makes no pair. `matrix_of(n)` is what is assumed of the inverse Hessian
    after n steps.
    """
    losses, pairs = [], []
    loss, gradient = evaluate(x)
    losses.append(loss)
    for steps in itertools.count():
        if len(losses) >= evaluations:
            break
        matrix = matrix_of(steps)
        direction = -(matrix @ gradient)
        direction *= 10 / np.abs(direction).max()
        if pairs:
            q, shares = gradient.copy(), []
            for s, y in reversed(pairs):
                shares.append((s @ q) / (s @ y))
                q -= shares[-1] * y
            scale = 2.0 * np.median([(s @ y) / (y @ matrix @ y) for s, y in pairs])
            r = scale * (matrix @ q)
            for (s, y), share in zip(pairs, reversed(shares), strict=True):
                r += (share - (y @ r) / (s @ y)) * s
            direction = -r
        step = 1.0
        while True:
            trial = x + step * direction
            new_loss, new_gradient = evaluate(trial)
            losses.append(new_loss)
            if new_loss <= loss + 1e-4 * step * (direction @ gradient):
                break
            step *= 0.3
        s, y = trial - x, new_gradient - gradient
        pairs = pairs[len(pairs) == history :]
        if s @ y > 0:
            pairs.append((s, y))
        x, loss, gradient = trial, new_loss, new_gradient
    return losses[:evaluations]


@pytest.mark.parametrize("where", ["device", "host"])
def test_lbfgs_begins_with_the_inverse_hessian_that_is_assumed(where):
    evaluate, minimum = quadratic(condition=100.0)
    rng = np.random.default_rng(5)
    root = rng.normal(size=(40, 40)) / 8
    matrix = np.eye(40) + root @ root.T

    def precondition(vector):
        product = (matrix @ np.asarray(vector, np.float64)).astype(np.float32)
        return product if where == "host" else ops.convert_to_tensor(product)

    seen = []
    start = np.zeros(40, np.float32)
    minimize(
        on_the_host(evaluate) if where == "host" else evaluate,
        start if where == "host" else ops.convert_to_tensor(start),
        lambda it: seen.append(it) or True,
        optimizer="lbfgs", evaluations=30, history=5, preconditioner=Given(precondition),
    )  # fmt: skip
    expected = textbook(
        lambda x: (evaluate(x)[0], np.asarray(evaluate(x)[1], np.float64)),
        np.zeros(40), lambda _: matrix, 30, 5,
    )  # fmt: skip
    assert [it.loss - minimum for it in seen[:20]] == pytest.approx(
        [loss - minimum for loss in expected[:20]], rel=0.02
    )


class Learning(Preconditioner):
    """Another matrix after six steps, and yet another after nine."""

    def __init__(self, matrices, placed):
        self._matrices, self._placed = matrices, placed
        self.seen = []

    def __call__(self, vector):
        product = self._matrices[self._now] @ np.asarray(vector, np.float64)
        return self._placed(product.astype(np.float32))

    def learn(self, pairs):
        self.seen.append([np.array(pair) for pair in pairs])
        return len(self.seen) in {6, 9}

    @property
    def _now(self):
        return (len(self.seen) >= 6) + (len(self.seen) >= 9)


@pytest.mark.parametrize("where", ["device", "host"])
def test_what_a_preconditioner_learns_holds_for_all_pairs_from_the_next_step_on(where):
    evaluate, minimum = quadratic(condition=100.0)
    rng = np.random.default_rng(5)
    roots = rng.normal(size=(3, 40, 40)) / 8
    matrices = np.eye(40) + roots @ roots.swapaxes(1, 2)
    placed = np.asarray if where == "host" else ops.convert_to_tensor
    preconditioner = Learning(matrices, placed)
    points, losses = [], []
    told = on_the_host(evaluate) if where == "host" else evaluate
    minimize(
        lambda x: points.append(np.array(x)) or told(x),
        placed(np.zeros(40, np.float32)),
        lambda it: losses.append(it.loss) or True,
        optimizer="lbfgs", evaluations=20, history=5, preconditioner=preconditioner,
    )  # fmt: skip
    expected = textbook(
        lambda x: (evaluate(x)[0], np.asarray(evaluate(x)[1], np.float64)),
        np.zeros(40), lambda steps: matrices[(steps > 6) + (steps > 9)], 20, 5,
    )  # fmt: skip
    assert [loss - minimum for loss in losses] == pytest.approx(
        [loss - minimum for loss in expected], rel=0.02
    )
    oldest, _ = preconditioner.seen[0][0]
    assert any(np.allclose(oldest, point - points[0], atol=1e-4) for point in points[1:])
    assert [len(pairs) for pairs in preconditioner.seen[:7]] == [1, 2, 3, 4, 4, 4, 4]


@pytest.mark.parametrize("where", ["device", "host"])
@pytest.mark.parametrize(("far", "history"), [(93.0, 10), (93.0, 2), (75.0, 10)])
def test_lbfgs_learns_nothing_from_a_step_that_curves_downward(where, far, history):
    """Half of the values begin near a summit: the third step shows that, or the first three do."""
    rng = np.random.default_rng(4)
    weights = rng.uniform(0.2, 5, 20)
    start = np.where(np.arange(20) < 10, rng.uniform(5, 25, 20), far)

    def exact(x):
        return np.sum(weights * (1 - np.cos(x / 30))), weights * np.sin(x / 30) / 30

    def evaluate(x):
        loss, gradient = exact(np.asarray(x, np.float64))
        return loss, ops.convert_to_tensor(gradient.astype(np.float32))

    begin = start.astype(np.float32)
    on_device = where == "device"
    seen = []
    minimize(
        evaluate if on_device else on_the_host(evaluate),
        ops.convert_to_tensor(begin) if on_device else begin,
        lambda iterate: seen.append(iterate.loss) or True,
        optimizer="lbfgs", evaluations=12, history=history,
    )  # fmt: skip
    assert seen == pytest.approx(
        textbook(exact, start, lambda _: np.eye(20), 12, history), rel=1e-3
    )


@pytest.mark.parametrize("where", ["device", "host"])
def test_with_a_good_preconditioner_lbfgs_is_soon_there_within_bounds_too(where):
    curvature = np.geomspace(0.01, 10, 40).astype(np.float32)
    goal = np.linspace(-90, 90, 40).astype(np.float32)

    def evaluate(x):
        miss = np.asarray(x) - goal
        gradient = curvature * miss
        value = float(gradient @ miss) / 2
        return value, gradient if where == "host" else ops.convert_to_tensor(gradient)

    def evaluations(preconditioner):
        seen = []
        start = np.zeros(40, np.float32)
        minimize(
            evaluate, start if where == "host" else ops.convert_to_tensor(start),
            lambda it: seen.append(it.best_loss) or True, optimizer="lbfgs", evaluations=60,
            bounds=(np.full(40, -50, np.float32), np.full(40, 50, np.float32)),
            preconditioner=Given(preconditioner),
        )  # fmt: skip
        least = evaluate(np.clip(goal, -50, 50))[0]
        return next(i for i, loss in enumerate(seen) if loss < 1.001 * least)

    assert 3 * evaluations(lambda v: v / curvature) < evaluations(lambda v: v)


@pytest.mark.parametrize("where", ["device", "host", "host, columns first"])
@pytest.mark.parametrize("seed", range(4))
def test_within_bounds_a_preconditioner_that_mixes_values_leads_to_the_least_too(where, seed):
    rng = np.random.default_rng(seed)
    turn, _ = np.linalg.qr(rng.normal(size=(36, 36)))
    hessian = turn @ np.diag(np.geomspace(1, 100, 36)) @ turn.T
    slope = rng.normal(size=36) * 60
    root = rng.normal(size=(36, 36)) / 2
    matrix = (np.eye(36) + root @ root.T).astype(np.float32)
    shape = (1, 3, 4, 3)

    def value_and_gradient(x):
        point = np.asarray(x, np.float64).reshape(-1)
        return point @ hessian @ point / 2 - slope @ point, hessian @ point - slope

    def evaluate(x):
        value, gradient = value_and_gradient(x)
        gradient = gradient.astype(np.float32).reshape(shape)
        if where == "device":
            return float(value), ops.convert_to_tensor(gradient)
        return float(value), np.copy(gradient, order="C" if where == "host" else "F")

    def precondition(vector):
        product = (matrix @ np.asarray(vector).reshape(-1)).reshape(shape)
        return ops.convert_to_tensor(product) if where == "device" else product

    start = np.zeros(shape, np.float32)
    one = np.ones(shape, np.float32)
    best = minimize(
        evaluate, ops.convert_to_tensor(start) if where == "device" else start, lambda _: True,
        optimizer="lbfgs", evaluations=60, bounds=(-one, one), preconditioner=Given(precondition),
    )  # fmt: skip
    reference = scipy_minimize(
        value_and_gradient, np.zeros(36), jac=True, bounds=[(-1, 1)] * 36, method="L-BFGS-B"
    )
    assert evaluate(best)[0] == pytest.approx(reference.fun, rel=0.01)


@pytest.mark.parametrize("where", ["device", "host"])
def test_where_a_preconditioner_leads_into_a_bound_lbfgs_goes_on_along_the_gradient(where):
    """The second value, a hair below its bound, promises a fall that the bound then takes away."""
    matrix = np.array([[1, 0.9], [0.9, 1]], np.float32)

    def placed(array):
        return array if where == "host" else ops.convert_to_tensor(array)

    def evaluate(x):
        point = np.asarray(x, np.float64)
        value = point[0] - 3 * point[1] + 1e-3 * point @ point
        gradient = np.array([1, -3]) + 2e-3 * point
        return float(value), placed(gradient.astype(np.float32))

    best = minimize(
        evaluate, placed(np.array([0, 50 - 1e-4], np.float32)), lambda _: True,
        optimizer="lbfgs", evaluations=60, bounds=(np.float32(-50), np.float32(50)),
        preconditioner=Given(lambda vector: placed(matrix @ np.asarray(vector))),
    )  # fmt: skip
    assert np.asarray(best) == pytest.approx([-50, 50])


@pytest.mark.parametrize("size_of_box", [0.02, 0.3])
@pytest.mark.parametrize(
    ("optimizer", "evaluations", "where"),
    [
        ("lbfgs", 150, "device"), ("lbfgs", 150, "host"),
        ("lbfgs-scipy", 150, "device"), ("adam", 400, "device"),
    ],
)  # fmt: skip
def test_bounds_are_kept_at_every_evaluation_and_the_best_within_them_is_found(
    optimizer, evaluations, where, size_of_box
):
    evaluate, free_minimum = quadratic(condition=100.0)
    most = np.linspace(0.5, 1.5, 40).astype(np.float32) * size_of_box

    def within(x):
        point = np.asarray(x)
        assert (-most <= point).all()
        assert (point <= most).all()
        loss, gradient = evaluate(x)
        return loss, np.array(gradient) if where == "host" else gradient

    start = np.linspace(-2, 2, 40).astype(np.float32)  # both ends lie outside
    best = minimize(
        within, start if where == "host" else ops.convert_to_tensor(start), lambda _: True,
        optimizer=optimizer, evaluations=evaluations, bounds=(-most, most),
    )  # fmt: skip
    reference = scipy_minimize(
        lambda x: evaluate(x)[0], np.zeros(40), bounds=list(zip(-most, most, strict=True)),
        jac=lambda x: np.asarray(evaluate(x)[1], np.float64), method="L-BFGS-B",
    )  # fmt: skip
    cost = abs(reference.fun - free_minimum)
    assert cost > 1e-3 * abs(free_minimum), "the box must matter"
    rel = 0.2 if optimizer == "adam" else 1e-3  # Adam's fixed rate is coarse for so small a box
    assert evaluate(best)[0] == pytest.approx(reference.fun, rel=rel)


@pytest.mark.parametrize("optimizer", ["lbfgs", "lbfgs-scipy"])
def test_within_bounds_the_first_step_is_long_enough_to_show_in_a_rough_loss(optimizer):
    """Of pixels a loss is flat: a step as long as its gradient would drown in rounding."""

    def evaluate(x):
        miss = np.asarray(x, np.float64) - np.linspace(-90, 90, 40)
        loss = float(f"{1e-6 * miss @ miss + 1:.4g}")
        return loss, ops.convert_to_tensor((2e-6 * miss).astype(np.float32))

    bounds = -np.full(40, 50, np.float32), np.full(40, 50, np.float32)
    best = minimize(
        evaluate, ops.zeros((40,)), lambda _: True,
        optimizer=optimizer, evaluations=40, bounds=bounds,
    )  # fmt: skip
    best_within = evaluate(np.clip(np.linspace(-90, 90, 40), *bounds))[0]
    assert evaluate(best)[0] - best_within < 0.01 * (evaluate(np.zeros(40))[0] - best_within)


@pytest.mark.parametrize("where_held", ["nowhere", "nearly everywhere"])
@pytest.mark.parametrize("history", [2, 5])
def test_lbfgs_on_the_host_is_content_with_two_images_a_pair_and_five(history, where_held):
    """The image that it is given is one of them."""
    curvature = np.random.default_rng(0).uniform(0.1, 3, 10**6).astype(np.float32)

    def evaluate(x):
        gradient = curvature * x
        return float(gradient @ x) / 2, gradient

    least = np.full(10**6, -50 if where_held == "nowhere" else 50, np.float32)
    least[0] = -50
    tracemalloc.start()
    starts = [np.full(10**6, 50, np.float32)]  # nobody else holds it
    minimize(
        evaluate, starts.pop(), lambda _: True, optimizer="lbfgs", evaluations=12, history=history,
        bounds=(least, np.float32(60)), preconditioner=Given(lambda vector: 2 * vector),
    )  # fmt: skip
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < (2 * history + 4.5) * least.nbytes


def test_lbfgs_keeps_nothing_of_a_step_that_was_rejected():
    gradients, losses = [], []

    def evaluate(x):
        assert sum(gradient() is not None for gradient in gradients) <= 1
        point = np.asarray(x, np.float64)
        gradient = ops.convert_to_tensor(rosen_der(point).astype(np.float32))
        gradients.append(weakref.ref(gradient))
        losses.append(float(rosen(point)))
        return losses[-1], gradient

    start = ops.zeros((10,), dtype="float32")
    minimize(evaluate, start, lambda _: True, optimizer="lbfgs", evaluations=40)
    assert losses != sorted(losses, reverse=True), "some were"


@pytest.mark.parametrize("where", [lambda x: x, on_the_host])
def test_lbfgs_ends_where_the_gradient_s_precision_has_no_more_to_give(where):
    evaluate, minimum = quadratic(condition=50.0)

    def coarse(x):  # half a per cent of the loss is noise
        loss, gradient = evaluate(x)
        return float(np.ceil(loss / abs(minimum) * 200)), gradient

    seen = []
    start = np.zeros(40, np.float32) if where is on_the_host else ops.zeros((40,))
    minimize(
        where(coarse), start, lambda it: seen.append(it) or True, optimizer="lbfgs",
        evaluations=500,
    )  # fmt: skip
    assert len(seen) < 120
    assert seen[-1].best_loss <= -190


@pytest.mark.parametrize("where", [lambda x: x, on_the_host])
def test_lbfgs_goes_on_through_the_noise_of_the_loss_and_gives_the_best(where):
    evaluate, minimum = quadratic(condition=1000.0)
    random = np.random.default_rng(1)

    def noisy(x):
        loss, gradient = evaluate(x)
        return loss + 1e-4 * abs(minimum) * float(random.random()), gradient

    def run(noise):
        seen = []
        start = np.zeros(40, np.float32) if where is on_the_host else ops.zeros((40,))
        best = minimize(
            where(noisy), start, lambda it: seen.append(it) or True, optimizer="lbfgs",
            evaluations=300, noise=noise,
        )  # fmt: skip
        assert [it.best_loss for it in seen] == sorted((it.best_loss for it in seen), reverse=True)
        assert np.array_equal(best, seen[-1].best)
        return evaluate(best)[0] / minimum

    assert run(0.0) < run(1e-3)
    assert run(1e-3) == pytest.approx(1.0, abs=1e-4)


def test_adam_is_its_paper_s_but_for_an_epsilon_in_the_gradient_s_unit():
    evaluate, _ = quadratic(condition=3.0)
    points = []

    def told(x):
        points.append(np.asarray(x))
        loss, gradient = evaluate(x)
        return loss, gradient if len(points) < 20 else None  # nobody goes on from the last

    minimize(told, ops.zeros((40,)), lambda _: True, optimizer="adam", evaluations=20)
    x, mean, square, epsilon = np.zeros(40), 0.0, 0.0, 0.0
    for t, point in enumerate(points, start=1):
        np.testing.assert_allclose(point, x, rtol=1e-4, atol=1e-4)
        gradient = np.asarray(evaluate(point)[1], np.float64)
        epsilon = epsilon or 0.01 * np.sqrt(np.mean(gradient**2))
        mean = 0.9 * mean + 0.1 * gradient
        square = 0.99 * square + 0.01 * gradient**2
        x = point - 4 * mean / (1 - 0.9**t) / (np.sqrt(square / (1 - 0.99**t)) + epsilon)
    assert len(points) == 20


def test_adam_goes_four_grey_levels_at_first_however_steep_it_is():
    points = []

    def evaluate(x):
        points.append(np.asarray(x))
        return float(points[-1].sum()), ops.convert_to_tensor(np.full(40, 1e6, np.float32))

    minimize(evaluate, ops.zeros((40,)), lambda _: True, optimizer="adam", evaluations=4)
    steps = -np.diff(points, axis=0)
    np.testing.assert_allclose(steps, 4 / 1.01, rtol=1e-4)
