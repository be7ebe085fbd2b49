"""Are so few frames recognised still what the model's card promises? A binomial bound for frames that come in clips.

Frames of one clip stand or fall together more often than chance would have it: they share a rendering, and what breaks
one (a truncated payload, a wrong label list) breaks its neighbours. To count them as independent would condemn honest
runs. So the frames are counted as the smaller number of independent ones that would scatter as much as the clips do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from scipy.special import betainc, stdtrit

IMPROBABLE = 1e-6
"""A recognition that is less likely than this, if the card is right, is not believed."""


@dataclass(frozen=True, slots=True)
class Recognition:
    """Frames recognised at a site, each content once, and how many of them correctly; with what their clips add up to.

    Attributes:
        clips: in which the frames came.
        frames_squared: sum over the clips of frames x frames. frames_correct: of frames x correct ones.
        correct_squared: of correct ones x correct ones.
    """

    site: str
    frames: int
    correct: int
    clips: int
    frames_squared: int
    frames_correct: int
    correct_squared: int

    @classmethod
    def of_clips(cls, site: str, clips: Sequence[tuple[int, int]]) -> Recognition:
        """From frames and correct ones of each clip."""
        return cls(
            site,
            sum(frames for frames, _ in clips),
            sum(correct for _, correct in clips),
            len(clips),
            sum(frames * frames for frames, _ in clips),
            sum(frames * correct for frames, correct in clips),
            sum(correct * correct for _, correct in clips),
        )

    @property
    def share(self) -> float:
        """Of the frames, those that are correct; 1 when there are none."""
        return self.correct / self.frames if self.frames else 1.0


def design_effect(site: Recognition) -> float | None:
    """Variance of the share of correct frames over what independent frames would have; 1 where clips do not matter.

    The linearised variance of a ratio over clusters (Cochran, Sampling Techniques, 3rd ed., section 9A; Kish 1965).

    Returns:
        None when it cannot be estimated: from one clip, or where all frames agree.
    """
    if site.clips < 2 or site.correct in (0, site.frames):
        return None
    share = site.share
    residuals = site.correct_squared - 2 * share * site.frames_correct + share * share * site.frames_squared
    return (site.clips / (site.clips - 1)) * residuals / (site.frames * share * (1 - share))


def effective_frames(site: Recognition, level: float = IMPROBABLE) -> float:
    """How many independent frames say as much, for a statement at a one-sided ``level``.

    Frames over design effect, less what is due to the few clips that it was estimated from (the ratio of Student
    quantiles of Korn & Graubard 1998, "Confidence intervals for proportions with small expected number of positive
    counts estimated from survey data"). Never less than if the frames of each clip always agreed, which is also what
    holds when nothing can be estimated, and never more than the frames.
    """
    if not site.frames:
        return 0.0
    if_clips_agree = site.frames**2 / site.frames_squared
    effect = design_effect(site)
    if not effect:
        return if_clips_agree
    quantiles = stdtrit(site.frames - 1, level) / stdtrit(site.clips - 1, level)
    return float(min(site.frames, max(if_clips_agree, site.frames / effect * quantiles**2)))


def probability_of_so_few(site: Recognition, accuracy: float, level: float = IMPROBABLE) -> float:
    """Probability of at most so many correct frames, if each is correct with probability ``accuracy``.

    Binomial over the `effective_frames`, which need not be a whole number: a regularised incomplete beta function.
    """
    if site.correct == site.frames:
        return 1.0
    if accuracy >= 1.0:
        return 0.0
    frames = effective_frames(site, level)
    correct = frames * site.share
    return float(betainc(frames - correct, correct + 1, 1.0 - accuracy))
