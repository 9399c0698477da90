"""Grad modes as decorators of whatever can be suspended, and objects that are entered more than once."""

import asyncio
import contextlib
import functools
import gc
import inspect
import threading
import weakref

import pytest

import tinygrad_cnn as tg

DECORATORS = {
    "no_grad()": (lambda engine: engine.no_grad(), False),
    "no_grad": (lambda engine: engine.no_grad, False),
    "enable_grad()": (lambda engine: engine.enable_grad(), True),
    "enable_grad": (lambda engine: engine.enable_grad, True),
    "set_grad_enabled(False)": (lambda engine: engine.set_grad_enabled(False), False),
    "set_grad_enabled(True)": (lambda engine: engine.set_grad_enabled(True), True),
}
every_decorator = pytest.mark.parametrize("make, mode", DECORATORS.values(), ids=DECORATORS)
every_mode_outside = pytest.mark.parametrize("outside", [True, False])


@pytest.fixture(params=["tinygrad_cnn", "torch"])
def engine(request):
    """What is said here of generators holds in PyTorch too."""
    return tg if request.param == "tinygrad_cnn" else pytest.importorskip("torch")


class Mode:
    """The caller's mode, which must be the same whenever the caller runs."""

    def __init__(self, engine, mode):
        self.engine, self.mode = engine, mode

    def __enter__(self):
        self.scope = self.engine.set_grad_enabled(self.mode)
        self.scope.__enter__()

    def __exit__(self, *exc):
        assert self.engine.is_grad_enabled() == self.mode
        self.scope.__exit__(*exc)


# ---- generators ------------------------------------------------------------------------------------------------------


@every_decorator
@every_mode_outside
def test_a_generator_runs_in_the_mode_and_its_caller_in_its_own(engine, make, mode, outside):
    with Mode(engine, outside):
        @make(engine)
        def numbers(n):
            """Kept."""
            for i in range(n):
                seen.append(engine.is_grad_enabled())
                yield i
            seen.append(engine.is_grad_enabled())
            return "done"

        def caller():
            returned.append((yield from numbers(3)))

        seen, returned, got = [], [], []
        assert engine.is_grad_enabled() == outside
        for i in caller():
            assert engine.is_grad_enabled() == outside
            got.append(i)
        assert (got, returned, seen) == ([0, 1, 2], ["done"], [mode] * 4)
        assert numbers.__name__ == "numbers" and numbers.__doc__ == "Kept." and inspect.isgeneratorfunction(numbers)


@every_decorator
@every_mode_outside
def test_what_is_sent_and_thrown_arrives_in_the_mode(engine, make, mode, outside):
    with Mode(engine, outside):
        @make(engine)
        def echo():
            got = "first"
            while True:
                try:
                    got = yield got, engine.is_grad_enabled()
                except KeyError as error:
                    got = repr(error)
                except ValueError:
                    return engine.is_grad_enabled()

        generator = echo()
        assert next(generator) == ("first", mode) and engine.is_grad_enabled() == outside
        assert generator.send(5) == (5, mode) and engine.is_grad_enabled() == outside
        assert generator.throw(KeyError("a")) == ("KeyError('a')", mode) and engine.is_grad_enabled() == outside
        with pytest.raises(StopIteration) as stop:
            generator.throw(ValueError)
        assert stop.value.value == mode and engine.is_grad_enabled() == outside
        with pytest.raises(ZeroDivisionError):                     # what it does not catch comes back
            started(echo()).throw(ZeroDivisionError)
        with pytest.raises(TypeError, match="just-started generator"):
            echo().send(5)


def started(generator):
    next(generator)
    return generator


@every_decorator
@every_mode_outside
def test_a_generator_that_is_closed_cleans_up_in_the_mode(engine, make, mode, outside):
    with Mode(engine, outside):
        @make(engine)
        def held(stubborn=False):
            try:
                yield
            finally:
                seen.append(engine.is_grad_enabled())
                if stubborn:
                    yield

        seen = []
        generator = started(held())
        generator.close()
        assert list(generator) == [] and seen == [mode]
        generator = started(held())
        del generator
        gc.collect()
        assert seen == [mode] * 2
        held().close()                                             # never begun: nothing to clean up
        assert len(seen) == 2
        with pytest.raises(RuntimeError, match="ignored GeneratorExit"):
            started(held(stubborn=True)).close()


@every_mode_outside
def test_a_block_inside_a_decorated_generator_may_span_a_yield(engine, outside):
    @engine.no_grad()
    def generator():
        with engine.enable_grad():
            yield engine.is_grad_enabled()
        yield engine.is_grad_enabled()

    with Mode(engine, outside):
        steps = generator()
        with engine.no_grad():
            assert next(steps) is True
            assert not engine.is_grad_enabled()
        assert engine.is_grad_enabled() == outside
        with engine.enable_grad():
            assert next(steps) is False
            assert engine.is_grad_enabled()
        assert list(steps) == []


def test_generators_nest_and_interleave(engine):
    @engine.no_grad()
    def off(depth):
        yield engine.is_grad_enabled()
        if depth:
            yield from off(depth - 1)
            yield from on(depth - 1)
        yield engine.is_grad_enabled()

    @engine.enable_grad()
    def on(depth):
        yield engine.is_grad_enabled()
        if depth:
            yield from off(depth - 1)
        yield engine.is_grad_enabled()

    assert list(off(0)) == [False] * 2
    assert list(off(2)) == [False, *[False, *[False] * 2, *[True] * 2, False], *[True, False, False, True], False]
    for a, b in zip(off(0), on(0), strict=True):
        assert (a, b, engine.is_grad_enabled()) == (False, True, True)


def test_an_exception_that_passes_through_a_generator_keeps_nothing_alive():
    @tg.no_grad()
    def generator(x):
        yield x.shape

    x = tg.ones(3)
    alive = weakref.ref(x)
    with pytest.raises(KeyError):
        started(generator(x)).throw(KeyError)
    gc.disable()
    try:
        del x
        assert alive() is None
    finally:
        gc.enable()


# ---- methods and other callables -------------------------------------------------------------------------------------


class Model:
    @tg.no_grad()
    def method(self):
        yield tg.is_grad_enabled()

    @tg.no_grad
    @staticmethod
    def above_static():
        yield tg.is_grad_enabled()

    @staticmethod
    @tg.no_grad()
    def below_static():
        yield tg.is_grad_enabled()

    @tg.set_grad_enabled(False)
    @classmethod
    def above_class(cls):
        yield tg.is_grad_enabled()

    @classmethod
    @tg.no_grad()
    def below_class(cls):
        yield tg.is_grad_enabled()

    @property
    @tg.no_grad()
    def prop(self):
        return [tg.is_grad_enabled()]

    def __call__(self, n):
        for _ in range(n):
            yield tg.is_grad_enabled()


@pytest.mark.parametrize("name", [name for name in vars(Model) if not name.startswith("_")])
def test_methods_of_every_kind(name):
    value = getattr(Model(), name)
    assert list(value if name == "prop" else value()) == [False] and tg.is_grad_enabled()


def test_callables_that_are_generators():
    assert list(tg.no_grad()(Model())(2)) == [False] * 2
    assert list(tg.no_grad()(functools.partial(Model.__call__, Model()))(2)) == [False] * 2
    assert list(tg.no_grad()(lambda: (yield tg.is_grad_enabled()))()) == [False]


def test_a_decorated_class_stays_usable_and_says_what_it_means():
    class Plain:
        def __init__(self):
            self.mode = tg.is_grad_enabled()

        def __call__(self):
            yield tg.is_grad_enabled()

    with pytest.warns(UserWarning, match="no_grad: of the class Plain only the constructor will run in this mode") as caught:
        Decorated = tg.no_grad()(Plain)
    assert caught[0].filename == __file__
    assert not Decorated().mode and list(Decorated()()) == [True]


@pytest.mark.parametrize("call, message", [
    (lambda: tg.no_grad(False), "no_grad: can only decorate a function, got False"),
    (lambda: tg.enable_grad()(3), "enable_grad: can only decorate a function, got 3"),
    (lambda: tg.no_grad()(property(lambda self: 1)), "no_grad: can only decorate a function, got <property"),
    (lambda: tg.set_grad_enabled(test_callables_that_are_generators), "set_grad_enabled: mode must be True or False, got function <function"),
    (lambda: tg.set_grad_enabled(None), "set_grad_enabled: mode must be True or False, got NoneType None")])
def test_wrong_use_is_refused_and_switches_nothing(call, message):
    with tg.no_grad():
        with pytest.raises(TypeError, match=message):
            call()
        assert not tg.is_grad_enabled()
    assert tg.is_grad_enabled()


# ---- coroutines ------------------------------------------------------------------------------------------------------


@every_decorator
@every_mode_outside
def test_a_coroutine_runs_in_the_mode_and_others_meanwhile_in_theirs(make, mode, outside):
    @make(tg)
    async def work(turns):
        for _ in range(turns):
            seen.append(tg.is_grad_enabled())
            await asyncio.sleep(0)
        return "done"

    async def watch(turns):
        for _ in range(turns):
            others.append(tg.is_grad_enabled())
            await asyncio.sleep(0)

    async def main():
        return await asyncio.gather(work(4), watch(5), work(3))

    seen, others = [], []
    assert inspect.iscoroutinefunction(work)
    with Mode(tg, outside):
        assert asyncio.run(main()) == ["done", None, "done"]
    assert seen == [mode] * 7 and others == [outside] * 5


def test_a_coroutine_that_is_cancelled_or_fails():
    @tg.no_grad()
    async def cleans_up():
        try:
            await asyncio.sleep(10)
        finally:
            seen.append(tg.is_grad_enabled())
            await asyncio.sleep(0)
            seen.append(tg.is_grad_enabled())

    async def main():
        task = asyncio.create_task(cleans_up())
        await asyncio.sleep(0)
        assert tg.is_grad_enabled()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        with pytest.raises(ZeroDivisionError):
            await tg.no_grad()(fails)()
        assert tg.is_grad_enabled()

    async def fails():
        await asyncio.sleep(0)
        return 1 / 0

    seen = []
    asyncio.run(main())
    assert seen == [False] * 2


@every_decorator
@every_mode_outside
def test_an_asynchronous_generator(make, mode, outside):
    @make(tg)
    async def echo():
        got = "first"
        try:
            while True:
                await asyncio.sleep(0)
                try:
                    got = yield got, tg.is_grad_enabled()
                except KeyError as error:
                    await asyncio.sleep(0)
                    got = repr(error)
                except ValueError:
                    return
        finally:
            await asyncio.sleep(0)
            cleaned.append(tg.is_grad_enabled())

    async def main():
        generator = echo()
        assert await anext(generator) == ("first", mode) and tg.is_grad_enabled() == outside
        assert await generator.asend(5) == (5, mode) and tg.is_grad_enabled() == outside
        assert await generator.athrow(KeyError("a")) == ("KeyError('a')", mode) and tg.is_grad_enabled() == outside
        await generator.aclose()
        assert [x async for x in generator] == [] and cleaned == [mode]
        generator = echo()
        await anext(generator)
        with pytest.raises(StopAsyncIteration):
            await generator.athrow(ValueError)
        generator = echo()
        await anext(generator)
        with pytest.raises(ZeroDivisionError):
            await generator.athrow(ZeroDivisionError)
        assert cleaned == [mode] * 3
        async for value in echo():                                 # left in the middle: the loop closes it
            assert value == ("first", mode) and tg.is_grad_enabled() == outside
            break
        gc.collect()
        await asyncio.sleep(0.01)

    cleaned = []
    assert inspect.isasyncgenfunction(echo)
    with Mode(tg, outside):
        asyncio.run(main())
    assert cleaned == [mode] * 4


def test_an_asynchronous_generator_that_will_not_close():
    @tg.no_grad()
    async def stubborn():
        with contextlib.suppress(GeneratorExit):
            yield
        yield

    async def main():
        generator = stubborn()
        await anext(generator)
        with pytest.raises(RuntimeError, match="ignored GeneratorExit"):
            await generator.aclose()

    asyncio.run(main())
    assert tg.is_grad_enabled()


# ---- one object more than once ---------------------------------------------------------------------------------------

SCOPES = {name: (make, mode) for name, (make, mode) in DECORATORS.items() if name.endswith(")")}
every_scope = pytest.mark.parametrize("make, mode", SCOPES.values(), ids=SCOPES)


@every_scope
@every_mode_outside
def test_one_object_within_itself(make, mode, outside):
    with Mode(tg, outside):
        scope = make(tg)
        for _ in range(2):                                         # and again after
            with scope:
                with scope:
                    with tg.set_grad_enabled(not mode), scope:
                        assert tg.is_grad_enabled() == mode
                    assert tg.is_grad_enabled() == mode
                with pytest.raises(ZeroDivisionError), scope:
                    _ = 1 / 0
                assert tg.is_grad_enabled() == mode
            assert tg.is_grad_enabled() == outside


@every_scope
def test_one_object_in_several_threads(make, mode):
    """The second thread, in the other mode, goes in and out while the first is inside; then the other way round."""
    scope, go = make(tg), threading.Barrier(2, timeout=10)
    failures = []

    def work(outside, first):
        def expect(wanted):
            if tg.is_grad_enabled() != wanted:
                failures.append((outside, first, wanted))

        tg.set_grad_enabled(outside)
        for turn in (first, not first):
            if turn:
                with scope:
                    go.wait()
                    expect(mode)
                    go.wait()
                    expect(mode)
                expect(outside)
                go.wait()
            else:
                go.wait()
                with scope:
                    expect(mode)
                    go.wait()
                    expect(mode)
                expect(outside)
                go.wait()
            expect(outside)

    if hasattr(scope, "place"):
        tg.set_grad_enabled(True)
    threads = [threading.Thread(target=work, args=arguments) for arguments in ((True, True), (False, False))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures and tg.is_grad_enabled()


def test_one_object_in_several_tasks():
    scope = tg.no_grad()

    async def work(first, second):
        with scope:
            for _ in range(first):
                await asyncio.sleep(0)
                assert not tg.is_grad_enabled()
        await asyncio.sleep(0)
        with scope:
            for _ in range(second):
                await asyncio.sleep(0)

    async def main():
        await asyncio.gather(work(1, 0), work(3, 2), work(2, 5))
        assert tg.is_grad_enabled()

    asyncio.run(main())


def test_a_block_that_one_thread_enters_and_another_leaves_changes_only_the_first():
    def generator():
        with tg.no_grad():
            yield

    steps, seen = generator(), []

    def begin():
        next(steps)
        seen.append(tg.is_grad_enabled())

    thread = threading.Thread(target=begin)
    thread.start()
    thread.join()
    assert list(steps) == [] and tg.is_grad_enabled() and seen == [False]


def test_a_statement_that_becomes_a_block_or_a_decorator(engine):
    switch = engine.set_grad_enabled(False)
    assert not engine.is_grad_enabled()
    with switch:
        assert not engine.is_grad_enabled()
    assert engine.is_grad_enabled()                                # as before it was made
    switch = engine.set_grad_enabled(False)
    with engine.no_grad():
        pass

    def inner():
        return engine.is_grad_enabled()

    decorated = switch(inner)
    assert engine.is_grad_enabled() and not decorated() and engine.is_grad_enabled()


def test_a_switch_used_late_takes_back_nothing_of_others():
    switch = tg.set_grad_enabled(False)
    with tg.enable_grad(), tg.no_grad():
        with switch:                                               # PyTorch goes on recording after this
            pass
        assert not tg.is_grad_enabled()
        switch(len)
        assert not tg.is_grad_enabled()
    assert not tg.is_grad_enabled()
    tg.set_grad_enabled(True)
