import { torture } from "./torture.ts";

Deno.test("a training that is killed again and again ends as one that is not", async () => {
  await torture(3);
});
