import { assert, assertEquals } from "@std/assert";
import { planMemory } from "../../src/gpu/compile/memory_plan.ts";
import { Random } from "../random.ts";

Deno.test("planMemory() shares a slot between what is never needed together", () => {
  const { slots, slotOf } = planMemory([
    { key: "a", size: 100, first: 0, last: 1 },
    { key: "b", size: 60, first: 2, last: 3 },
    { key: "c", size: 50, first: 1, last: 2 },
  ]);
  assertEquals(slots, [100, 50]);
  assertEquals(slotOf.get("a"), slotOf.get("b"));
});

Deno.test("planMemory() keeps apart what overlaps, even at its ends", () => {
  const random = new Random("plan");
  const lives = Array.from({ length: 200 }, (_, key) => {
    const first = random.below(100);
    return { key, size: 1 + random.below(1000), first, last: first + random.below(20) };
  });
  const { slots, slotOf } = planMemory(lives);
  for (const a of lives) {
    assert(slots[slotOf.get(a.key)!] >= a.size);
    for (const b of lives) {
      const overlaps = a.first <= b.last && b.first <= a.last;
      assert(a === b || !overlaps || slotOf.get(a.key) !== slotOf.get(b.key));
    }
  }
  const most = Math.max(
    ...Array.from(
      { length: 120 },
      (_, t) => lives.filter((l) => l.first <= t && t <= l.last).reduce((n, l) => n + l.size, 0),
    ),
  );
  const total = slots.reduce((n, s) => n + s, 0);
  assert(total < 1.4 * most, `${total} bytes where ${most} are needed at once`);
});
