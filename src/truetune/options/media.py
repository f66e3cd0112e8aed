"""Options: images, video and audio in conversations."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from truetune.options.schema import Advice, Group, Text

_NOT_READ = ("images, video and audio are not read yet", "暂不读取图片、视频和音频")


class MediaOptions(Group):
    title: ClassVar[tuple[str, str]] = ("Media", "图像、视频与音频")

    image_max_pixels: Annotated[int, Field(gt=0), Text(
        "Images with more pixels (width x height) than this are scaled down.",
        "像素数（宽 x 高）超过它的图像会被缩小。",
        memory="up", speed="down", quality="up",
        higher=(
            "finer detail is seen; each image takes more tokens, memory and time",
            "能看清更细的内容；每张图占用更多 token、显存和时间"),
        lower=("cheaper images; small print is lost", "图像更省；小字会看不清"),
        advice=(
            Advice("Qwen2-VL spends one token on 28 x 28 pixels: 589,824 of them are about 750 tokens.",
                   "Qwen2-VL 每 28 x 28 像素用一个 token：589,824 像素约 750 个 token。", "qwen2-vl"),
        ),
        no_effect=_NOT_READ, free_on_resume=True)] = 589824
    image_min_pixels: Annotated[int, Field(gt=0), Text(
        "Images with fewer pixels than this are scaled up.",
        "像素数低于它的图像会被放大。",
        level="expert", memory="up", speed="down", quality="depends",
        higher=("small images are seen better and take more tokens", "小图看得更清楚，占用的 token 也更多"),
        lower=("small images stay small and cheap", "小图保持原样，更省"),
        no_effect=_NOT_READ, free_on_resume=True)] = 1024
    image_do_pan_and_scan: Annotated[bool, Text(
        "Gemma 3: cut large or long images into pieces that are looked at beside the whole.",
        "Gemma 3：把大图或长图切成几块，与整图一起看。",
        level="expert", memory="up", speed="down", quality="up",
        higher=("text in images is read better, at more tokens", "图中的文字读得更好，token 更多"),
        lower=("one look at each image", "每张图只看一次"),
        advice=(Advice("Worth it where text in images has to be read.", "需要读图中文字时值得开启。", "gemma3"),),
        no_effect=_NOT_READ, free_on_resume=True)] = False
    crop_to_patches: Annotated[bool, Text(
        "InternVL: cut large images into tiles of the size that its encoder takes.",
        "InternVL：把大图切成编码器所需大小的小块。",
        level="expert", memory="up", speed="down", quality="up",
        higher=("large images keep their detail, at many more tokens", "大图保留细节，token 多得多"),
        lower=("each image is scaled to one tile", "每张图缩放成一块"),
        advice=(
            Advice("Tiles of 448 x 448 pixels are how InternVL 1.5 reads documents.",
                   "InternVL 1.5 靠 448 x 448 的小块来读文档。", "internvl"),
        ),
        no_effect=_NOT_READ, free_on_resume=True)] = False
    video_max_pixels: Annotated[int, Field(gt=0), Text(
        "The same for each frame of a video: larger ones are scaled down.",
        "视频每一帧的像素上限，超过则缩小。",
        level="expert", memory="up", speed="down", quality="up",
        higher=("more detail in each frame, more tokens", "每帧更清晰，token 更多"),
        lower=("cheaper frames", "每帧更省"),
        no_effect=_NOT_READ, free_on_resume=True)] = 65536
    video_min_pixels: Annotated[int, Field(gt=0), Text(
        "Frames with fewer pixels than this are scaled up.",
        "像素数低于它的帧会被放大。",
        level="expert", memory="up", speed="down", quality="depends",
        higher=("small frames take more tokens", "小的帧占用更多 token"),
        lower=("small frames stay small", "小的帧保持原样"),
        no_effect=_NOT_READ, free_on_resume=True)] = 256
    video_fps: Annotated[float, Field(gt=0), Text(
        "Frames taken from each second of a video.",
        "视频每秒取多少帧。",
        level="expert", memory="up", speed="down", quality="up",
        higher=(
            "fast motion is seen; more tokens until video_maxlen is reached",
            "能看到快速动作；达到 video_maxlen 之前 token 增多"),
        lower=("longer videos fit", "能放下更长的视频"),
        no_effect=_NOT_READ, free_on_resume=True)] = 2.0
    video_maxlen: Annotated[int, Field(gt=0), Text(
        "Most frames of one video; a longer one is sampled evenly.",
        "一个视频最多取多少帧，更长的均匀抽取。",
        level="expert", memory="up", speed="down", quality="up",
        higher=("long videos are seen more closely, at more tokens", "长视频看得更细，token 更多"),
        lower=("long videos are skimmed", "长视频只看大概"),
        no_effect=_NOT_READ, free_on_resume=True)] = 128
    use_audio_in_video: Annotated[bool, Text(
        "Listen to a video's sound track too (omni models).",
        "同时使用视频的音轨（全模态模型）。",
        level="expert", memory="up", speed="down", quality="up",
        higher=("sound is heard, at more tokens", "能听到声音，token 更多"),
        lower=("pictures only", "只看画面"),
        no_effect=_NOT_READ, free_on_resume=True)] = False
    audio_sampling_rate: Annotated[int, Field(gt=0), Text(
        "Audio is resampled to so many samples a second.",
        "音频重采样到每秒多少个采样点。",
        level="expert", memory="up", speed="down", quality="depends",
        higher=("more samples than the encoder was made for", "采样点多于编码器的设计"),
        lower=("high sounds are lost", "丢失高频声音"),
        advice=(
            Advice("16,000 is what Whisper's encoder was trained on; take the rate of the model's own encoder.",
                   "Whisper 的编码器用 16,000 训练；应与模型自己的编码器一致。", "whisper"),
        ),
        no_effect=_NOT_READ, free_on_resume=True)] = 16000
    freeze_vision_tower: Annotated[bool, Text(
        "Leave the part that sees as it is.",
        "不训练视觉编码器。",
        memory="down", speed="up", quality="depends",
        higher=("less memory, and seeing is not unlearned", "显存更少，视觉能力不会退化"),
        lower=("new kinds of images can be learned, given many of them", "数据够多时能学会新类型的图像"),
        advice=(Advice("LLaVA keeps it frozen in both of its stages.", "LLaVA 的两个阶段都冻结它。", "llava"),),
        not_offered=(
            "images are not read yet, so the part that sees does not learn",
            "还不读取图像，视觉编码器不参与训练"),
        free_on_resume=True)] = True
    freeze_multi_modal_projector: Annotated[bool, Text(
        "Leave the layers between seeing and language as they are.",
        "不训练连接视觉与语言的投影层。",
        level="expert", memory="down", speed="up", quality="depends",
        higher=("less memory; what is seen is told as before", "显存更少；视觉到语言的映射不变"),
        lower=("new kinds of images are tied to words", "能把新类型的图像与文字对应起来"),
        advice=(Advice("LLaVA trains it in both of its stages.", "LLaVA 的两个阶段都训练它。", "llava"),),
        not_offered=("images are not read yet, so the projector does not learn", "还不读取图像，投影层不参与训练"),
        free_on_resume=True)] = True
    freeze_language_model: Annotated[bool, Text(
        "Leave the language model as it is and train only how it sees.",
        "不训练语言模型，只训练视觉部分。",
        level="expert", memory="down", speed="up", quality="depends",
        higher=("language stays exactly as it was", "语言能力完全不变"),
        lower=("the language model learns", "语言模型参与学习"),
        advice=(
            Advice("LLaVA does so in its first stage only, where the projector alone learns.",
                   "LLaVA 只在第一阶段这样做，那时只训练投影层。", "llava"),
        ),
        not_offered=("the language model is all that is trained here", "这里训练的只有语言模型"),
        free_on_resume=True)] = False
