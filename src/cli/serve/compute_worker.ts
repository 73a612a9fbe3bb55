/**
 * The thread in which the server computes.
 *
 * @module
 */

import { answer, type Port } from "../../worker/channel.ts";
import { silence } from "../terminal/progress.ts";
import { makeService } from "./compute.ts";

// The thread that answers opens the same models, and says what there is to say of them.
silence();
answer(globalThis as unknown as Port, makeService());
