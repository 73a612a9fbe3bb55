/**
 * Inception v3 (Szegedy et al. 2016, "Rethinking the Inception architecture for computer vision") as
 * data: blocks of parallel branches, whose results are put side by side.
 *
 * @module
 */

/** Pooling: `max` halves the resolution, the others keep it. */
export type Pooling = "max" | "max, same size" | "average";

/** A convolution with batch normalisation and ReLU. */
export interface BlockConv {
  /** As in files, below the name of the block; empty if it is all of it. */
  readonly name: string;
  /** Channels of the result. */
  readonly channels: number;
  /** Height and width of its kernel. */
  readonly size: readonly [height: number, width: number];
  /** Pixels between the places of the kernel. */
  readonly stride: 1 | 2;
  /** Whether the image is padded with zeros, so that it keeps its size. */
  readonly isPadded: boolean;
}

/** A layer of a branch; of several convolutions, each is shown the same. */
export type BlockLayer = Pooling | BlockConv | readonly BlockConv[];

/** A block: its branches in the order of their channels. */
export interface Block {
  /** As in files. */
  readonly name: string;
  readonly branches: readonly (readonly BlockLayer[])[];
}

/** A convolution that keeps the size of the image. */
const conv = (
  name: string,
  channels: number,
  size: readonly [height: number, width: number] = [1, 1],
): BlockConv => ({ name, channels, size, stride: 1, isPadded: true });

/** A convolution by 3 × 3 without padding. */
const inner = (name: string, channels: number, stride: 1 | 2 = 2): BlockConv => ({
  ...{ name, channels, size: [3, 3], stride, isPadded: false },
});

/** A block that is one layer. */
const single = (name: string, layer: BlockLayer): Block => ({ name, branches: [[layer]] });

/** Of 35 × 35 pixels. */
const mixedA = (name: string, pooled: number): Block => ({
  name,
  branches: [
    [conv("branch1x1", 64)],
    [conv("branch5x5_1", 48), conv("branch5x5_2", 64, [5, 5])],
    [
      conv("branch3x3dbl_1", 64),
      conv("branch3x3dbl_2", 96, [3, 3]),
      conv("branch3x3dbl_3", 96, [3, 3]),
    ],
    ["average", conv("branch_pool", pooled)],
  ],
});

/** Of 17 × 17 pixels; `width` is that within its branches. */
const mixedC = (name: string, width: number): Block => ({
  name,
  branches: [
    [conv("branch1x1", 192)],
    [
      conv("branch7x7_1", width),
      conv("branch7x7_2", width, [1, 7]),
      conv("branch7x7_3", 192, [7, 1]),
    ],
    [
      conv("branch7x7dbl_1", width),
      conv("branch7x7dbl_2", width, [7, 1]),
      conv("branch7x7dbl_3", width, [1, 7]),
      conv("branch7x7dbl_4", width, [7, 1]),
      conv("branch7x7dbl_5", 192, [1, 7]),
    ],
    ["average", conv("branch_pool", 192)],
  ],
});

/** Of 8 × 8 pixels. */
const mixedE = (name: string, pooling: Pooling): Block => ({
  name,
  branches: [
    [conv("branch1x1", 320)],
    [
      conv("branch3x3_1", 384),
      [conv("branch3x3_2a", 384, [1, 3]), conv("branch3x3_2b", 384, [3, 1])],
    ],
    [
      conv("branch3x3dbl_1", 448),
      conv("branch3x3dbl_2", 384, [3, 3]),
      [conv("branch3x3dbl_3a", 384, [1, 3]), conv("branch3x3dbl_3b", 384, [3, 1])],
    ],
    [pooling, conv("branch_pool", 192)],
  ],
});

/**
 * The blocks in the variant by which the Fréchet inception distance is measured, that of TensorFlow's
 * graph of 2015: averages do not count what is padded, and the last block has a maximum in place of one.
 */
export const inceptionBlocks: readonly Block[] = [
  single("Conv2d_1a_3x3", inner("", 32)),
  single("Conv2d_2a_3x3", inner("", 32, 1)),
  single("Conv2d_2b_3x3", conv("", 64, [3, 3])),
  single("MaxPool_1", "max"),
  single("Conv2d_3b_1x1", conv("", 80)),
  single("Conv2d_4a_3x3", inner("", 192, 1)),
  single("MaxPool_2", "max"),
  mixedA("Mixed_5b", 32),
  mixedA("Mixed_5c", 64),
  mixedA("Mixed_5d", 64),
  {
    name: "Mixed_6a",
    branches: [
      [inner("branch3x3", 384)],
      [
        conv("branch3x3dbl_1", 64),
        conv("branch3x3dbl_2", 96, [3, 3]),
        inner("branch3x3dbl_3", 96),
      ],
      ["max"],
    ],
  },
  mixedC("Mixed_6b", 128),
  mixedC("Mixed_6c", 160),
  mixedC("Mixed_6d", 160),
  mixedC("Mixed_6e", 192),
  {
    name: "Mixed_7a",
    branches: [
      [conv("branch3x3_1", 192), inner("branch3x3_2", 320)],
      [
        conv("branch7x7x3_1", 192),
        conv("branch7x7x3_2", 192, [1, 7]),
        conv("branch7x7x3_3", 192, [7, 1]),
        inner("branch7x7x3_4", 192),
      ],
      ["max"],
    ],
  },
  mixedE("Mixed_7b", "average"),
  mixedE("Mixed_7c", "max, same size"),
];
