"""Small traces in the form of public data sets and tools, and how they are read here."""

import gzip

from loadtests.arrivals.traces.replay import TraceOptions, read_trace

AZURE_2019 = """HashOwner,HashApp,HashFunction,Trigger,1,2,3,4
o1,a1,f1,http,3,0,5,2
o1,a1,f2,timer,1,1,1,1
o2,a2,f3,queue,10,20,30,40
"""
AZURE_2021 = """app,func,end_timestamp,duration
a1,f1,5160.142570,0.134
a2,f2,5161.280997,0.013
a3,f3,5241.567729,42.356
a4,f4,5253.883348,42.372
a5,f5,5219.518173,0.108
a6,f6,5220.107290,0.093
"""
AZURE_LLM_2023 = """TIMESTAMP,ContextTokens,GeneratedTokens
2023-11-16 18:15:46.6805900,374,44
2023-11-16 18:15:50.9951690,396,109
2023-11-16 18:15:51.2225670,879,55
2023-11-16 18:15:52.3910170,91,16
"""
AZURE_LLM_2024 = """TIMESTAMP,ContextTokens,GeneratedTokens
2024-05-12 00:00:00.001163+00:00,1452,3
2024-05-12 00:00:01+00:00,584,3
2024-05-12 00:00:01.157988+00:00,862,38
"""
AZURE_LMM = """TIMESTAMP,NumImages,ContextTokens,GeneratedTokens
2024-10-15T12:00:00.269Z,0,770,491
2024-10-15T12:00:05.819Z,1,949,126
2024-10-15T12:00:06.513Z,3,964,79
2024-10-15T12:00:07.332Z,0,78,5
2024-10-15T12:00:07.566Z,1,1724,28
"""
BURSTGPT_1 = """Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type
5,ChatGPT,472,18,490,Conversation log
45,ChatGPT,1087,230,1317,Conversation log
118,GPT-4,417,276,693,API log
"""
BURSTGPT_3 = """Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Total tokens,Log Type
19440110.0,1722ac82-0a46-4bf0-aa08-89794e7a2b3f,43,GPT-4,906,446,1352,Conversation log
19440161.5,,2,ChatGPT,36,29,65,API log
"""
PERF_ANALYZER = "100000\n200000\n300000\n400000\n"
HEADERLESS = "0.0\n0.5\n1.25\n2.0\n"


def file_of(folder, text, name="trace.csv"):
    """Path of a file with the text; gzipped where the name says so."""
    path = folder / name
    path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    return path


def replay(path, duration_s=1000.0, seed=1, **how):
    """What read_trace returns."""
    return read_trace(TraceOptions(path, **how), duration_s, seed)


def seconds(path, **how):
    """Arrivals in seconds."""
    return (replay(path, **how).schedule.whole() / 1e9).tolist()
