/**
 * Models that can be downloaded and that the engine runs. Sizes are about right, the server's word decides; hashes are recorded
 * with the download where they are not known for certain beforehand.
 */
import type { CatalogueEntry } from '../../../contract/models.ts';

export type CatalogueSource = Omit<CatalogueEntry, 'installed' | 'builtIn' | 'approximateBytes'> & {
  /** Goes into model.json beside the files. */
  limits: Record<string, number>;
  defaults: Record<string, unknown>;
};

/** What Wan 2.1 was made for. */
export const wanLimits = { sideMultiple: 16, minSide: 256, maxTrainedSide: 1280, minFrames: 17, maxTrainedFrames: 81 };

/** The authors' own negative prompt: quality depends on it. */
const wanNegativePrompt =
  '色调艳丽，过曝，静态，细节模糊不清，字幕，风格，作品，画作，画面，静止，整体发灰，最差质量，低质量，JPEG压缩残留，丑陋的，残缺的，多余的手指，画得不好的手部，画得不好的脸部，畸形的，毁容的，形态畸形的肢体，手指融合，静止不动的画面，杂乱的背景，三条腿，背景人很多，倒着走';

export const wanDefaults = {
  width: 832,
  height: 480,
  frames: 81,
  fps: 16,
  steps: 50,
  guidanceScale: 5,
  shift: 5,
  scheduler: 'unipc',
  negativePrompt: wanNegativePrompt,
};

const repackaged = 'https://huggingface.co/Comfy-Org/Wan_2.1_ComfyUI_repackaged/resolve/main/split_files';

const shared: CatalogueSource['files'] = [
  {
    role: 'vae',
    name: 'wan_2.1_vae.safetensors',
    url: `${repackaged}/vae/wan_2.1_vae.safetensors`,
    approximateBytes: 254_000_000,
    sha256: null,
  },
  {
    role: 'textEncoder',
    name: 'umt5_xxl_fp8_e4m3fn_scaled.safetensors',
    url: `${repackaged}/text_encoders/umt5_xxl_fp8_e4m3fn_scaled.safetensors`,
    approximateBytes: 6_740_000_000,
    sha256: null,
  },
  {
    role: 'tokenizer',
    name: 'spiece.model',
    url: 'https://huggingface.co/google/umt5-xxl/resolve/main/spiece.model',
    approximateBytes: 4_550_000,
    sha256: null,
  },
];

const licence = { licence: 'Apache-2.0', licenceUrl: 'https://www.apache.org/licenses/LICENSE-2.0' };

export const catalogue: readonly CatalogueSource[] = [
  {
    id: 'wan2.1-t2v-1.3b',
    name: 'Wan 2.1 T2V 1.3B',
    description:
      'Text to video at 832×480 and 480×832. Runs in 8 GB of memory; minutes on a graphics card, hours on a processor.',
    ...licence,
    homepage: 'https://huggingface.co/Wan-AI/Wan2.1-T2V-1.3B',
    files: [
      {
        role: 'dit',
        name: 'wan2.1_t2v_1.3B_bf16.safetensors',
        url: `${repackaged}/diffusion_models/wan2.1_t2v_1.3B_bf16.safetensors`,
        approximateBytes: 2_840_000_000,
        sha256: null,
      },
      ...shared,
    ],
    limits: { ...wanLimits, maxTrainedSide: 832 },
    defaults: { ...wanDefaults, guidanceScale: 6, shift: 8 },
  },
  {
    id: 'wan2.1-t2v-14b',
    name: 'Wan 2.1 T2V 14B',
    description: 'Text to video up to 1280×720. Weights stream from the disk where memory is short.',
    ...licence,
    homepage: 'https://huggingface.co/Wan-AI/Wan2.1-T2V-14B',
    files: [
      {
        role: 'dit',
        name: 'wan2.1_t2v_14B_fp8_scaled.safetensors',
        url: `${repackaged}/diffusion_models/wan2.1_t2v_14B_fp8_scaled.safetensors`,
        approximateBytes: 14_300_000_000,
        sha256: null,
      },
      ...shared,
    ],
    limits: wanLimits,
    defaults: wanDefaults,
  },
];
