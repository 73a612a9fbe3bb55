/**
 * To be imported before whatever checks anything: zod asks whether it may compile its checks, which
 * strict content security policies report as a violation.
 *
 * @module
 */

import { config } from "zod";

config({ jitless: true });
