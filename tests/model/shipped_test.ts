import { assertEquals, assertRejects } from "@std/assert";
import { InputError } from "../../src/errors.ts";
import { initializeModel, serializeModel } from "../../src/model/model.ts";
import { fetchModel } from "../../src/model/shipped.ts";
import { tinyConfig } from "../networks.ts";

/** An address under which bytes can be fetched without a network. */
const serve = (bytes: Uint8Array<ArrayBuffer>) => new URL(URL.createObjectURL(new Blob([bytes])));

Deno.test("fetchModel() loads a model from any address", async () => {
  const model = initializeModel(tinyConfig(), {}, 1), url = serve(serializeModel(model));
  assertEquals((await fetchModel(url)).parameters, model.parameters);
  URL.revokeObjectURL(url.href);
});

Deno.test("fetchModel() refuses what is no model, and says where it came from", async () => {
  const url = serve(new Uint8Array(100));
  await assertRejects(() => fetchModel(url), InputError, url.href);
  URL.revokeObjectURL(url.href);
});

Deno.test("fetchModel() fails where there is nothing", async () => {
  await assertRejects(
    () => fetchModel(new URL("./nothing", import.meta.url)),
    TypeError,
    "nothing",
  );
});
